// The rule by which every router finds the same donor.
import { expect, test } from "vitest";
import { chooseDonors } from "./choose-donors.ts";
import { NO_HOLDER } from "./choose-replicas.ts";

test("the shard with fewest slots is the donor, the lowest number of several, what it is given counted", () => {
  expect(chooseDonors([5], [3, 2, 2])).toEqual([1]);
  expect(chooseDonors([5, 6, 7, 8], [3, 2, 2])).toEqual([1, 2, 0, 1]);
});

test("a shard that may not be asked is no donor, and where none may there is none", () => {
  expect(chooseDonors([5, 6], [undefined, 9, undefined])).toEqual([1, 1]);
  expect(chooseDonors([5, 6], [undefined])).toEqual([NO_HOLDER, NO_HOLDER]);
  expect(chooseDonors([5], [])).toEqual([NO_HOLDER]);
  expect(chooseDonors([], [1])).toEqual([]);
});
