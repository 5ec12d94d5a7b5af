// Configuration look-ups: a bad value is named with its file, key, and what is allowed.
import { expect, test } from "vitest";
import { ConfigFile, readConfigFile } from "./config-file.ts";

const config = new ConfigFile("x/config.json", {
  width: 4,
  eps: 1e-6,
  name: "n",
  on: true,
  list: [1, 2],
  gate: { kind: "a" },
  half: 0.5,
});

test("good values come back", () => {
  expect(config.count("width")).toBe(4);
  expect(config.number("eps")).toBe(1e-6);
  expect(config.text("name")).toBe("n");
  expect(config.flag("on")).toBe(true);
  expect(config.numbers("list", 2)).toEqual([1, 2]);
  expect(config.object("gate").oneOf("kind", ["a", "b"])).toBe("a");
});

test("bad values are named", async () => {
  expect(() => config.count("half")).toThrow("x/config.json: half is 0.5, expected a whole number from 1 to 65536");
  expect(() => config.number("absent")).toThrow("x/config.json: absent is missing, expected a number");
  expect(() => config.numbers("list", 3)).toThrow("list is [1,2], expected 3 numbers");
  expect(() => config.object("gate").oneOf("kind", ["b", "c"])).toThrow(
    'x/config.json: gate: kind is "a", expected one of b, c',
  );
  expect(() => new ConfigFile("c", { many: 1e9 }).count("many")).toThrow("many is 1000000000, expected a whole number");
  const wild = new ConfigFile("c", { list: [1, Infinity], rows: [[1, null]] });
  expect(() => wild.numbers("list")).toThrow("list is [1,null], expected numbers");
  expect(() => wild.rows("rows", 1, 2)).toThrow("rows is [[1,null]], expected 1 rows of 2 numbers");
  expect(() => config.expectOnly(["width", "eps"])).toThrow('name is "n", expected only the keys width, eps');
  expect(() => config.expectValue("on", false)).toThrow("on is true, expected false");
  expect(() => config.rows("list", 1, 2)).toThrow("expected 1 rows of 2 numbers");
  await expect(readConfigFile("/nowhere/config.json")).rejects.toThrow("/nowhere/config.json: is missing");
  await expect(readConfigFile(import.meta.filename)).rejects.toThrow(/is not JSON/);
});
