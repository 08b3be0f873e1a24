/**
 * The benchmark's tables: what is claimed, and that the documents have the figures of bench/results.json.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { pictures } from "../../bench/pictures.ts";
import { fullTable, quantile, type Results, ratio, summary, table, withTable } from "../../bench/table.ts";
import { root } from "../helpers/programs.ts";

const read = (path: string) => Bun.file(join(root, path)).text();
const results: Results = await Bun.file(join(root, "bench/results.json")).json();

test.each([
  ["README.md", table],
  ["bench/README.md", fullTable],
] as const)("%s has the table of bench/results.json", async (path, make) => {
  const document = await read(path);
  expect(document).toContain(make(results));
  expect(withTable(document, results, make)).toBe(document);
});

test("README begins with what the table has", async () => {
  const memory = (peer: string) => results.measures["memory total"]?.[peer]?.median ?? 0;
  const [ours, theirs] = [memory("freestanding"), memory("C, glibc")];
  const mebibytes = ((theirs - ours) * 110) / 1024;
  const head = (await read("README.md")).split("\n\n")[1]?.replaceAll("\n", " ");
  for (const claim of [
    `${Math.round(ours)} KiB at rest where the same program in C, static with glibc, takes ${Math.round(theirs)}`,
    `${mebibytes.toFixed(1)} MiB on a node of 110 pods and ${Math.round((mebibytes * 5000) / 1024)} GiB on 5,000 such nodes`,
  ])
    expect(head).toContain(claim);
});

test("the pictures are those of bench/results.json", async () => {
  for (const [name, svg] of Object.entries(await pictures(results)))
    expect([name, (await read(`bench/${name}`)) === svg]).toEqual([name, true]);
});

test("README's table has at most seven rows, and bench/README.md every measure", async () => {
  const rows = (text: string) => text.split("\n").filter((line) => line.startsWith("|")).length - 2;
  expect(rows(table(results))).toBeLessThanOrEqual(7);
  expect(rows(fullTable(results))).toBe(Object.keys(results.measures).length);
});

test("a difference is only claimed where the middle halves of the values do not overlap", () => {
  const standard = summary([10, 11, 12, 13, 14]);
  expect(ratio(summary([13, 14, 15, 16, 17]), standard)).toBe("×1.25");
  expect(ratio(summary([12, 13, 14, 15, 16]), standard)).toBe("≈");
  expect(ratio(summary([5, 6, 6, 6, 7]), standard)).toBe("×0.50");
  expect(ratio(summary([1000]), standard)).toBe("×83.3");
  expect(ratio(summary([20]), standard)).toBe("×1.67");
  expect(ratio(summary([20]), standard, 9)).toBe("≈");
});

test("what is in brackets has the unit of the value before it, and a size has no ratio", () => {
  const peers = { "C, glibc": summary([700]), own: summary([2280, 2290, 2334, 2400, 2410]) };
  const measures = { "memory total": peers, executable: { ...peers, own: summary([0.5859]) } };
  const rows = fullTable({ ...results, measures }).split("\n");
  expect(rows).toContain("| memory charged at rest | 700 KiB | 2.28 MiB (2.24–2.34) ×3.33 |");
  expect(rows).toContain("| executable | 700 KiB | 600 bytes |");
});

test("quantiles lie between the values", () => {
  expect(quantile([4, 1, 3, 2], 0.5)).toBe(2.5);
  expect(quantile([1, 2, 3, 4, 5], 0.25)).toBe(2);
});
