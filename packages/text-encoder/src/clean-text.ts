// What is done to a text before it becomes tokens, as the model's own pipeline does it. Pure.
import { decodeHTML } from "entities";
import { fix_text } from "ftfy-js";

/** White space alone is put in order; or ftfy repairs it and HTML's entities are decoded too, twice, as diffusers does. */
export type Cleaning = "whitespace" | "ftfy";

/** Code points that no reference may stand for: Python's html.unescape leaves them out. */
// oxlint-disable-next-line no-control-regex
const NOT_CHARACTERS = /[\u0001-\u0008\u000b\u000e-\u001f\u007f\ufdd0-\ufdef\ufffe\uffff]/g;

function unescaped(text: string): string {
  return decodeHTML(text).replaceAll(NOT_CHARACTERS, "");
}

/** Runs of white space become one space, none is left at either end. */
export function cleaned(text: string, cleaning: Cleaning): string {
  const repaired = cleaning === "ftfy" ? unescaped(unescaped(fix_text(text))) : text;
  return repaired.trim().replaceAll(/\s+/g, " ");
}
