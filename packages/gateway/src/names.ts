// Resource names: videos/{id} and operations/{id}. Parsing only.
import { invalidFields, violation } from "@moevie/contracts";

const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The job id in `name`. Throws INVALID_FIELD for another shape. */
export function jobIdOf(name: string, collection: "videos" | "operations"): string {
  const id = name.startsWith(`${collection}/`) ? name.slice(collection.length + 1) : "";
  if (ID.test(id)) return id;
  throw invalidFields([violation("name", name, `${collection}/{id} as the service gave it`)]);
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Throws INVALID_FIELD unless empty or a UUID. */
export function checkRequestId(requestId: string): void {
  if (requestId === "" || UUID.test(requestId)) return;
  throw invalidFields([violation("request_id", requestId, "a UUID of 36 characters, or empty")]);
}
