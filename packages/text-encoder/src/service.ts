// TextEncoderService: checks the request once and encodes its texts. No logic of its own.
import { MoevieError, limit, type FieldViolation } from "@moevie/contracts";
import { implement, type GrpcService } from "@moevie/runtime";
import type { Encode } from "./encode.ts";

export function textEncoderService(encode: Encode): GrpcService {
  return implement("moevie.v1.TextEncoderService", {
    async Encode({ texts }, { signal }) {
      refuse(texts);
      const contexts = [];
      for (const text of texts) {
        // A graph that runs cannot be stopped; the next text of a caller who left is not begun.
        signal.throwIfAborted();
        contexts.push(await encode(text));
      }
      return { contexts };
    },
  });
}

function refuse(texts: readonly string[]): void {
  const violations: FieldViolation[] = [];
  const textsMax = limit("textsPerEncodeMax");
  if (texts.length < 1 || texts.length > textsMax) {
    violations.push({ field: "texts", description: `${texts.length} texts; allowed: 1 to ${textsMax}` });
  }
  const charactersMax = limit("promptCharactersMax");
  for (const [i, text] of texts.entries()) {
    if (Array.from(text).length > charactersMax)
      violations.push({
        field: `texts[${i}]`,
        description: `${Array.from(text).length} characters; allowed: up to ${charactersMax}`,
      });
  }
  if (violations.length > 0) throw new MoevieError("INVALID_FIELD", "The texts cannot be encoded.", { violations });
}
