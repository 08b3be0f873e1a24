/**
 * What a benchmark leaves behind. `bun bench/publish.ts [RESULTS]` renews, together, all that is tracked of it: results.json,
 * the pictures, and the tables in README.md and bench/README.md; from bench/results.json as it is, if nothing else is named.
 */
import { join } from "node:path";
import { dist, root } from "../tests/helpers/programs.ts";
import { pictures } from "./pictures.ts";
import { fullTable, MEASURES, type Results, table, withTable } from "./table.ts";

const TRACKED = join(root, "bench");
/** Where a run leaves its results. */
export const FOLDER = join(dist, "bench");

/** JSON in which each measure of a peer is a line. */
const readable = (results: Results): string =>
  `${JSON.stringify(results, null, 2).replace(/\{[^{}]*\}/g, (inner) => inner.replace(/\s+/g, " "))}\n`;

/** Writes results.json and the pictures into a folder. */
export async function write(results: Results, folder: string): Promise<void> {
  await Bun.write(join(folder, "results.json"), readable(results));
  for (const [name, svg] of Object.entries(await pictures(results))) await Bun.write(join(folder, name), svg);
}

/**
 * Renews what is tracked.
 *
 * @throws {Error} if a measure is missing: then a table would lose its row.
 */
export async function publish(results: Results): Promise<void> {
  const absent = Object.keys(MEASURES).filter((measure) => results.measures[measure] === undefined);
  if (absent.length > 0) throw new Error(`nothing is published: the results have no ${absent.join(", no ")}`);
  await write(results, TRACKED);
  for (const [path, make] of [
    ["README.md", table],
    ["bench/README.md", fullTable],
  ] as const) {
    const file = Bun.file(join(root, path));
    await Bun.write(file, withTable(await file.text(), results, make));
  }
}

if (import.meta.main)
  try {
    await publish(await Bun.file(Bun.argv[2] ?? join(TRACKED, "results.json")).json());
  } catch (error) {
    console.error(`publish: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  }
