// What is done to a text before it becomes tokens, as the model's own pipeline does it. Pure.
import { decodeHTML } from "entities";
import { fix_text } from "ftfy-js";
import type { Manifest } from "@moevie/bundle";

/** White space alone is put in order; or ftfy repairs it and HTML's entities are decoded too, twice, as diffusers does. */
export type Cleaning = Manifest["text"]["cleaning"];

/** Code points that no reference may stand for: Python's html.unescape leaves them out. */
const NOT_CHARACTERS = /(?![\t\n\f\r\u0080-\u009f])[\p{Cc}\ufdd0-\ufdef\ufffe\uffff]/gu;

function unescaped(text: string): string {
  return decodeHTML(text).replaceAll(NOT_CHARACTERS, "");
}

/** Runs of white space become one space, none is left at either end. */
export function cleaned(text: string, cleaning: Cleaning): string {
  const repaired = cleaning === "ftfy" ? unescaped(unescaped(fix_text(text))) : text;
  return repaired.trim().replaceAll(/\s+/g, " ");
}
