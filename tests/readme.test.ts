import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { slope, withTable } from "../bench/table.ts";
import { root } from "./helpers/programs.ts";

test("README has the table of bench/results.json", async () => {
  const readme = await Bun.file(join(root, "README.md")).text();
  const results = await Bun.file(join(root, "bench/results.json")).json();
  expect(withTable(readme, results)).toBe(readme);
});

test("README's links within the repository lead somewhere", async () => {
  const readme = await Bun.file(join(root, "README.md")).text();
  const links = [...readme.matchAll(/\]\(([^):]+)\)/g)].map(([, path]) => path ?? "");
  expect(links.length).toBeGreaterThan(5);
  expect(links.filter((path) => !existsSync(join(root, path)))).toEqual([]);
});

test("the cost per instance is the slope of the line, in KiB", () => {
  expect(slope([1, 10, 100].map((count) => ({ count, memory: 5 + count * 2 })))).toBeCloseTo(2048);
});
