/**
 * The programs under test, and the C programs that the tests use.
 */
import { mkdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { version } from "../../package.json" with { type: "json" };
import { must } from "./process.ts";
import { CC } from "./tools.ts";

export const root = resolve(import.meta.dir, "../..");
export const dist = join(root, "dist");
/** What Debian, Go and OCI images call this machine's architecture. */
export const architecture = process.arch === "arm64" ? "arm64" : "amd64";
mkdirSync(dist, { recursive: true });

const time = (file: string): number => statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;

/**
 * Compiles one of the C programs beside this file, static, into dist/, unless that is there and newer.
 *
 * @param compiler a command, or what says it if it is needed
 */
export function compile(
  name: string,
  compiler: string | (() => readonly string[]) = "cc",
  executable = join(dist, name),
): string {
  const source = join(import.meta.dir, `${name}.c`);
  // package.json has the version.
  if (time(executable) > Math.max(time(source), time(join(root, "package.json")))) return executable;
  const options = ["-Os", "-static", "-s", "-Wall", "-Wextra", `-DVERSION="${version}"`];
  const command = typeof compiler === "function" ? compiler() : [compiler];
  must(...command, ...options, "-o", executable, source);
  return executable;
}

/** A program under test. */
export interface Program {
  readonly name: string;
  readonly executable: string;
  /** What -v prints. */
  readonly version: string;
  /** Whether these lines of /proc/PID/maps are what it keeps of its executable at rest. */
  readonly keeps: (mappings: readonly string[]) => boolean;
  /** The tools that it takes to build it. */
  readonly tools: Record<string, string>;
}

/** init.ts under Bun, in one file. */
export const hosted: Program = {
  name: "hosted",
  executable: join(dist, "pause"),
  version: `init.ts ${version}\n`,
  keeps: (mappings) => mappings.length === 0,
  tools: {},
};

/** init.ts without Bun and without libc, for this machine. */
export const freestanding: Program = {
  name: "freestanding",
  executable: join(dist, "freestanding", architecture, "pause"),
  version: `init.ts ${version}\n`,
  keeps: ([only = "", ...more]) => / r-xp 00000000 /.test(only) && more.length === 0,
  tools: {},
};

/** The C program beside which the others are held. It is compiled when it is asked for. */
export const reference: Program = {
  name: "reference",
  get executable() {
    return compile("reference");
  },
  version: `pause.c ${version}\n`,
  keeps: () => true,
  tools: CC,
};

export const programs: readonly Program[] = [hosted, freestanding, reference];
