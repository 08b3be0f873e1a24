/**
 * The world in which a program is compiled: it has the language and the program's words, and nothing else.
 *
 * What is compiled is found out by running it, so nothing but the answers to its calls may reach it. Each run gets a
 * world of its own, and what a program keeps at module level begins anew with it.
 */
import { basename, dirname, relative, resolve } from "node:path";
import { type Context, createContext, Script } from "node:vm";
import { originalPositionFor, TraceMap } from "@jridgewell/trace-mapping";
import { Unsupported } from "../explore.ts";
import type { Main } from "../libc.ts";

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

/** Milliseconds after which a run is taken for one that does not end, if it had the processor for some of them. */
const TIMEOUT = 5000;
const TIMEOUT_OF_PROCESSOR = 1000;

/** That a run had less of the processor than it takes to say whether it ends. */
class Starved extends Error {}

/** What the bundler would put its own values for. */
const OF_THE_BUILD = [
  "__dirname",
  "__filename",
  "import.meta",
  "process.browser",
  "process.env.NODE_ENV",
  "require",
];

/** A program that can be run, and its source. */
export interface Source {
  /** The name of its file. */
  readonly name: string;
  /** Sloppy: in strict mode JavaScriptCore drops the frames of calls in tail position, and with them their lines. */
  readonly sloppy: Script;
  /** What the hosted build makes of it: strict, and with other names. */
  readonly strict: Script;
  /** "file:line" of where an error was made, from the file's folder; undefined if not in the program. */
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
  const folder = dirname(resolve(path));
  /** Bun's are relative to the working directory. */
  const nameOf = (file: string | null) => relative(folder, resolve(file ?? ""));
  const [sloppy, strict] = await Promise.all([bundle(path, false), bundle(path, true)]);
  const maps = new Map([sloppy, strict].map(({ name, map }) => [name, map]));
  const { sources, sourcesContent } = sloppy.map;
  const lines = new Map(sources.map((file, index) => [nameOf(file), sourcesContent?.[index]?.split("\n")]));
  return {
    name: basename(path),
    sloppy: sloppy.script,
    strict: strict.script,
    placeOf(at) {
      for (const [, name = "", line, column] of (at?.stack ?? "").matchAll(/(pause:\w+):(\d+):(\d+)/g)) {
        const map = maps.get(name);
        if (map === undefined) continue;
        const found = originalPositionFor(map, { line: Number(line), column: Number(column) - 1 });
        const file = nameOf(found.source);
        // Not where start calls main: where it is called.
        if (!file.endsWith("ffi/freestanding/start.ts")) return `${file}:${found.line}`;
      }
      return undefined;
    },
    textOf(place) {
      const [file = "", line] = place.split(":");
      return lines.get(file)?.[Number(line) - 1]?.trim() ?? "";
    },
  };
}

/** Makes one script of a program. `name` is its file in the frames of a stack. */
async function bundle(path: string, isStrict: boolean) {
  let foreign: string | undefined;
  const { success, outputs, logs } = await Bun.build({
    entrypoints: [resolve(path)],
    format: "iife",
    target: "browser",
    conditions: ["freestanding"],
    sourcemap: "external",
    minify: isStrict,
    define: Object.fromEntries(OF_THE_BUILD.map((name) => [name, `program.${name.replaceAll(".", "_")}`])),
    throw: false,
    plugins: [
      {
        name: "only files of the program's own",
        setup(build) {
          build.onResolve({ filter: /^[^./#]/ }, async ({ path, importer }) => {
            const lines = (await Bun.file(importer).text()).split("\n");
            const line =
              1 + lines.findIndex((line) => /\b(import|from|require)\b/.test(line) && line.includes(path));
            foreign ??= `${basename(importer)}:${line}: this file imports ${path}, and a program has only its words`;
            return { path, external: true };
          });
        },
      },
    ],
  });
  if (outputs.some(({ kind }) => kind === "asset"))
    foreign ??= `${basename(path)}: this file imports one that is neither a program nor a text`;
  if (foreign !== undefined) throw new Unsupported(foreign);
  const [script, map] = outputs;
  if (!success || script === undefined || map === undefined) {
    const [log] = logs;
    const place = log?.position ? `${basename(log.position.file)}:${log.position.line}: ` : "";
    throw new Unsupported(`${place}${log?.message ?? "it cannot be read"}`);
  }
  const name = isStrict ? "pause:strict" : "pause:sloppy";
  const text = `${isStrict ? '"use strict";' : ""}${await script.text()}`;
  return { name, script: new Script(text, { filename: name }), map: new TraceMap(await map.text()) };
}

/** Runs a program as often as a busy machine makes it necessary. */
export function patiently<T>(run: (timeout: number) => T, timeout = TIMEOUT): T {
  try {
    return run(timeout);
  } catch (error) {
    if (error instanceof Starved) return patiently(run, 2 * timeout);
    throw error;
  }
}

/**
 * Runs a program in a world of its own.
 *
 * @param start is given its main
 * @param refuse is told what the program looked for and may not have, or that it does not end. It throws.
 */
export function runInNewWorld(
  script: Script,
  timeout: number,
  start: (main: Main) => never,
  refuse: (reason: string | Error) => never,
): void {
  const world: Context = Object.create(null);
  createContext(world, { codeGeneration: { strings: false, wasm: false } });
  const foreign = (name: string) => refuse(`uses ${name}, and not only the answers to its calls`);
  const program = only({ start }, (name) =>
    foreign(OF_THE_BUILD.find((one) => one.replaceAll(".", "_") === name) ?? name),
  );
  Object.assign(world, TAKE_LANGUAGE.runInContext(world), { program });
  // What is not the world's own is looked for in its prototype.
  Object.setPrototypeOf(world, only({}, foreign));
  const before = process.cpuUsage();
  try {
    script.runInContext(world, { timeout });
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ERR_SCRIPT_EXECUTION_TIMEOUT"))
      throw error;
    // The timeout is the clock's, whoever had the processor.
    if (process.cpuUsage(before).user < 1000 * TIMEOUT_OF_PROCESSOR) refuse(new Starved());
    refuse("does not end: it calls nothing any more");
  }
}

/** The object, of which only what it has can be read, and of its functions nothing: they are only called. */
export function only<T extends object>(object: T, refuse: (name: string) => never): T {
  const has = (_: T, name: string | symbol) =>
    typeof name === "symbol" || Object.hasOwn(object, name) || refuse(name);
  for (const [word, value] of Object.entries(object))
    if (typeof value === "function") {
      delete value.name;
      delete value.length;
      Object.setPrototypeOf(value, new Proxy({}, { get: (_, name) => refuse(`${word}.${String(name)}`) }));
    }
  return new Proxy(object, {
    has,
    get: (_, name) => (has(_, name) ? Reflect.get(object, name) : undefined),
  });
}
