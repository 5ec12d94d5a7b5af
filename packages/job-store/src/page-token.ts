// Opaque page tokens: a position in the list that callers can hand back but not read meaning into.
import { invalidFields, violation } from "@moevie/contracts";

const VERSION = "1:";

export function tokenOf(number: number): string {
  return Buffer.from(`${VERSION}${number}`).toString("base64url");
}

/** Throws INVALID_FIELD for anything `tokenOf` did not make. */
export function cursorOf(token: string): number {
  const text = Buffer.from(token, "base64url").toString("latin1");
  const number = Number(text.slice(VERSION.length));
  if (text.startsWith(VERSION) && Number.isSafeInteger(number) && number > 0 && tokenOf(number) === token)
    return number;
  throw invalidFields([violation("page_token", token, "empty, or next_page_token of an earlier answer")]);
}
