/**
 * The world in which a program is compiled: it has the language and the program's words, and nothing else.
 *
 * What is compiled is found out by running it, so nothing but the answers to its calls may reach it. Each run gets a
 * world of its own, and what a program keeps at module level begins anew with it.
 */
import { basename, dirname, resolve } from "node:path";
import { type Context, createContext, Script } from "node:vm";
import { originalPositionFor, TraceMap } from "@jridgewell/trace-mapping";
import { Unsupported } from "../explore.ts";
import type { Libc, Main } from "../libc.ts";

/** What of the language a program may use: nothing here knows a time, a place or chance. */
const LANGUAGE =
  `Array ArrayBuffer BigInt Boolean DataView Error Infinity JSON Map Math NaN Number Object RangeError RegExp
  Set String Symbol TypeError Uint8Array isFinite isNaN parseFloat parseInt undefined`.split(/\s+/);

/** Hands the language over, without what depends on chance and on the locale of who builds. */
const TAKE_LANGUAGE = new Script(`
  delete Math.random;
  for (const { prototype } of [Array, BigInt, Number, Object, String, Uint8Array.__proto__])
    for (const name of Object.getOwnPropertyNames(prototype)) if (/locale/i.test(name)) delete prototype[name];
  ({ ${LANGUAGE.join()} })`);

const RUN = new Script("program.main(program.words)");

/** Milliseconds after which a run that makes no call is taken for one that does not end. */
const TIMEOUT = 5000;

/** The file name of the bundle in the frames of a stack. */
const BUNDLE = "pause:bundle";

/** What the bundler would put its own values for. */
const OF_THE_BUILD = ["__dirname", "__filename", "import.meta", "process.env.NODE_ENV"];

/** A program that can be run, and its source. */
export interface Source {
  /** The name of its file. */
  readonly name: string;
  readonly script: Script;
  /** "file:line" of where an error was made; undefined if not in the program. */
  placeOf(at: { readonly stack?: string } | undefined): string | undefined;
  /** The text of that line. */
  textOf(place: string): string;
}

/**
 * Reads a program, with all that it imports.
 *
 * @throws {Unsupported} if it imports what is no file of its own, or cannot be read.
 */
export async function readSource(path: string): Promise<Source> {
  const foreign: string[] = [];
  const { success, outputs, logs } = await Bun.build({
    entrypoints: [resolve(path)],
    root: dirname(resolve(path)),
    format: "iife",
    target: "browser",
    conditions: ["freestanding"],
    sourcemap: "external",
    define: Object.fromEntries(OF_THE_BUILD.map((name) => [name, `program.${name.replaceAll(".", "_")}`])),
    throw: false,
    plugins: [
      {
        name: "only files of the program's own",
        setup(build) {
          build.onResolve({ filter: /^[^./#]/ }, ({ path, importer }) => {
            foreign.push(`${basename(importer)}: imports ${path}, and a program has only its words`);
            return { path, external: true };
          });
        },
      },
    ],
  });
  if (foreign[0] !== undefined) throw new Unsupported(foreign[0]);
  const [bundle, map] = outputs;
  if (!success || bundle === undefined || map === undefined) {
    const [log] = logs;
    const place = log?.position ? `${basename(log.position.file)}:${log.position.line}: ` : "";
    throw new Unsupported(`${place}${log?.message ?? "it cannot be read"}`);
  }
  const trace = new TraceMap(await map.text());
  const lines = new Map(
    trace.sources.map((name, index) => [name, trace.sourcesContent?.[index]?.split("\n") ?? []]),
  );
  return {
    name: basename(path),
    script: new Script(await bundle.text(), { filename: BUNDLE }),
    placeOf(at) {
      const [, line, column] = new RegExp(`${BUNDLE}:(\\d+):(\\d+)`).exec(at?.stack ?? "") ?? [];
      if (line === undefined) return undefined;
      const found = originalPositionFor(trace, { line: Number(line), column: Number(column) - 1 });
      return `${found.source}:${found.line}`;
    },
    textOf(place) {
      const [file = "", line] = place.split(":");
      return lines.get(file)?.[Number(line) - 1]?.trim() ?? "";
    },
  };
}

/**
 * Runs a program's main in a world of its own.
 *
 * @param refuse is told what the program looked for and may not have. It throws.
 */
export function runInNewWorld({ script }: Source, words: Libc, refuse: (reason: string) => never): unknown {
  const world: Context = Object.create(null);
  createContext(world, { codeGeneration: { strings: false, wasm: false } });
  const foreign = (name: string) => refuse(`uses ${name}, and not only the answers to its calls`);
  const program: { main: Main | undefined; words: Libc | undefined } = only(
    { main: undefined, words: undefined },
    (name) => foreign(OF_THE_BUILD.find((one) => one.replaceAll(".", "_") === name) ?? name),
  );
  Object.assign(world, TAKE_LANGUAGE.runInContext(world), { program });
  // What is not the world's own is looked for in its prototype.
  Object.setPrototypeOf(world, only({}, foreign));
  script.runInContext(world, { timeout: TIMEOUT });
  if (program.main === undefined) return refuse("is nothing that start was given");
  program.words = words;
  return RUN.runInContext(world, { timeout: TIMEOUT });
}

/** The object, of which only what it has can be read. */
export const only = <T extends object>(object: T, refuse: (name: string) => never): T =>
  new Proxy(object, {
    has: () => true,
    get: (of, name) =>
      typeof name === "symbol" || Object.hasOwn(of, name) ? Reflect.get(of, name) : refuse(name),
  });
