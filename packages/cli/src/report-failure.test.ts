// What a person reads when the server refuses: the flag or argument as it was written, its value and what is allowed.
import { MoevieError } from "@moevie/contracts";
import { expect, it } from "vitest";
import { explainFailure } from "./report-failure.ts";

it.each([
  ["page_token", "--page-token"],
  ["page_size", "--page-size"],
  ["name", "VIDEO"],
  ["request_id", "--request-id"],
  ["spec.seed", "--seed"],
])("a refused %s is told as %s", (field, flag) => {
  const description = 'is "x"; allowed: something else';
  const error = new MoevieError("INVALID_FIELD", "refused", { violations: [{ field, description }] });
  expect(explainFailure(error)).toMatchObject({
    exitCode: 2,
    lines: [`moevie: ${flag} ${description}`],
    json: { error: { reason: "INVALID_FIELD", violations: [{ flag, problem: description }] } },
  });
});
