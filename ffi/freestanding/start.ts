/**
 * init.ts without Bun and without libc: `bun --conditions=freestanding init.ts FOLDER` does not run the program, but
 * writes FOLDER/ARCHITECTURE/pause and its listing, pause.lst, for every architecture that there is.
 */
import { chmodSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { version } from "../../package.json" with { type: "json" };
import { assemble } from "../assembler/routine.ts";
import type { Handler, Main } from "../libc.ts";
import { type Architecture, architectures } from "./architectures.ts";
import { elfFile, sizeofHeaders } from "./elf.ts";
import { explore, type Node } from "./explore.ts";
import { listing } from "./listing.ts";
import { partsOf, type Source } from "./program.ts";

/** The largest program that is still one that can be read in one sitting, in bytes. */
const MOST = 4096;

/** An executable and its listing. */
export interface Program {
  readonly file: Uint8Array;
  readonly listing: string;
}

/** Compiles the tree of main for one architecture. */
export function compile(
  name: string,
  architecture: Architecture,
  tree: Node,
  handlers: Readonly<Record<string, Handler>>,
  source: Source,
): Program {
  const parts = partsOf(tree, handlers, architecture, source);
  const memory = new Uint8Array(MOST);
  const base = sizeofHeaders(architecture);
  const { size, labels, listing: lines } = assemble(architecture.encoder, parts, memory, base, true);
  const names = parts.map(({ label }) => label);
  const addresses = names.map((label) => labels[label] ?? base);
  const symbols = names.map((label, index) => {
    const address = addresses[index] ?? base;
    return { name: label, address, size: (addresses[index + 1] ?? base + size) - address };
  });
  const firstText = parts.findIndex((part) => "data" in part);
  const texts = (addresses[firstText] ?? base + size) - base;
  const title = `pause ${version}, ${name}: all that is loaded. Instructions as objdump -d prints them (-M intel for amd64).`;
  return {
    file: elfFile(architecture, { code: memory.subarray(0, size), texts, symbols }),
    listing: listing(title, base, memory, lines, names, labels),
  };
}

/** Writes all programs. What cannot be compiled is one line on standard error, and exit code 1. */
export function start(main: Main, handlers: Readonly<Record<string, Handler>>): void {
  const [path = "", folder = "dist/freestanding"] = Bun.argv.slice(1);
  try {
    const tree = explore(main, handlers);
    const source = { name: basename(path), lines: readFileSync(path, "utf8").split("\n") };
    for (const [name, architecture] of Object.entries(architectures)) {
      const program = compile(name, architecture, tree, handlers, source);
      mkdirSync(join(folder, name), { recursive: true });
      const executable = join(folder, name, "pause");
      // Beside it first: one that runs cannot be written to.
      writeFileSync(`${executable}.new`, program.file);
      chmodSync(`${executable}.new`, 0o755);
      renameSync(`${executable}.new`, executable);
      writeFileSync(join(folder, name, "pause.lst"), program.listing);
    }
  } catch (error) {
    console.error(`Error: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  }
}
