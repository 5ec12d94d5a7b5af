// Page sizes: capped, not refused; negative is refused (AIP-158).
import { MoevieError, limit } from "@moevie/contracts";

export function pageSizeOf(asked: number): number {
  if (asked < 0) {
    const description = `is ${asked}; allowed: 0 (the default) to ${limit("listPageSizeMax")}`;
    throw new MoevieError("INVALID_FIELD", `page_size ${description}`, {
      violations: [{ field: "page_size", description }],
    });
  }
  return asked === 0 ? limit("listPageSizeDefault") : Math.min(asked, limit("listPageSizeMax"));
}
