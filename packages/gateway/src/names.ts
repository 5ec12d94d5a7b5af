// Resource names: videos/{id} and operations/{id}. Parsing only.
import { MoevieError } from "@moevie/contracts";

const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The job id in `name`. Throws INVALID_FIELD for another shape. */
export function jobIdOf(name: string, collection: "videos" | "operations"): string {
  const id = name.startsWith(`${collection}/`) ? name.slice(collection.length + 1) : "";
  if (ID.test(id)) return id;
  const description = `is "${name.slice(0, 80)}"; allowed: ${collection}/{id} as the service gave it`;
  throw new MoevieError("INVALID_FIELD", `name ${description}`, { violations: [{ field: "name", description }] });
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Throws INVALID_FIELD unless empty or a UUID. */
export function checkRequestId(requestId: string): void {
  if (requestId === "" || UUID.test(requestId)) return;
  const description = `is "${requestId.slice(0, 80)}"; allowed: a UUID of 36 characters, or empty`;
  throw new MoevieError("INVALID_FIELD", `request_id ${description}`, {
    violations: [{ field: "request_id", description }],
  });
}
