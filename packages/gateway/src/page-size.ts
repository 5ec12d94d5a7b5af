// Page sizes: capped, not refused; negative is refused (AIP-158).
import { PAGE_SIZE, checkFields, limit, wrongNumber } from "@moevie/contracts";

export function pageSizeOf(asked: number): number {
  checkFields(wrongNumber("page_size", asked, PAGE_SIZE));
  return asked === 0 ? limit("listPageSizeDefault") : Math.min(asked, limit("listPageSizeMax"));
}
