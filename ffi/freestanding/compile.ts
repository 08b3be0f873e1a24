/**
 * The compiler of the freestanding executables, as a command:
 *
 *     bun ffi/freestanding/compile.ts init.ts [FOLDER]
 *
 * It writes FOLDER/ARCHITECTURE/pause and its listing, pause.lst, for every architecture that there is. Without FOLDER it
 * only says whether it could: what it refuses would not be what it says in the hosted executable either.
 */
import { chmodSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { version } from "../../package.json" with { type: "json" };
import { assemble, UnsupportedRoutine } from "../assembler/routine.ts";
import { type Architecture, architectures } from "./architectures.ts";
import { elfFile, sizeofHeaders } from "./elf.ts";
import { listing } from "./listing.ts";
import { partsOf } from "./program.ts";
import { type Recorded, record } from "./record.ts";
import { readSource, type Source } from "./world.ts";

/** The largest program, in bytes: one that can still be read, and for whose handlers the hosted build has memory. */
const MOST = 1 << 13;

/** An executable and its listing. */
export interface Executable {
  readonly file: Uint8Array;
  readonly listing: string;
}

/** Compiles what a program does for one architecture. */
export function compile(
  name: string,
  architecture: Architecture,
  recorded: Recorded,
  source: Source,
): Executable {
  const parts = partsOf(recorded, architecture, source);
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

/** Compiles a program for every architecture. Errors say for which, and where. */
export async function compileAll(path: string): Promise<ReadonlyMap<string, Executable>> {
  const source = await readSource(path);
  const recorded = record(source);
  const compiled = new Map<string, Executable>();
  for (const [name, architecture] of Object.entries(architectures))
    try {
      compiled.set(name, compile(name, architecture, recorded, source));
    } catch (error) {
      const [place] = error instanceof UnsupportedRoutine ? error.reason.split("  ") : [];
      throw new Error(`${place || source.name}: ${name}: ${error instanceof Error ? error.message : error}`);
    }
  return compiled;
}

/** Replaces a file by one beside it: one that runs cannot be written to. */
function replace(path: string, contents: Uint8Array | string, mode: number): void {
  writeFileSync(`${path}.new`, contents);
  chmodSync(`${path}.new`, mode);
  renameSync(`${path}.new`, path);
}

if (import.meta.main) {
  const [path = "init.ts", folder] = Bun.argv.slice(2);
  // What a program's own promises come to is nobody's business: nothing waits for them in the executables.
  process.on("unhandledRejection", () => {});
  try {
    for (const [name, executable] of await compileAll(path)) {
      if (folder === undefined) break;
      mkdirSync(join(folder, name), { recursive: true });
      replace(join(folder, name, "pause"), executable.file, 0o755);
      replace(join(folder, name, "pause.lst"), executable.listing, 0o644);
    }
  } catch (error) {
    console.error(`Error: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  }
}
