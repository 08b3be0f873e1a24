/**
 * What the tests run on: tools, and the executables to compare.
 */
import { expect } from "bun:test";
import { existsSync, mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { version } from "../package.json" with { type: "json" };
import { must, type Pod } from "./pod.ts";

export * from "./pod.ts";

export const root = resolve(import.meta.dir, "..");
export const dist = join(root, "dist");
mkdirSync(dist, { recursive: true });

/**
 * Says which of these tools, each with Debian's package for it, are missing: "" or the command that gets them.
 *
 * @throws in CI, where nothing is skipped.
 */
export function missing(tools: Record<string, string>): string {
  const packages = Object.entries(tools).filter(([tool]) => Bun.which(tool) === null && !existsSync(tool));
  if (packages.length === 0) return "";
  const how = `apt-get install ${packages.map(([, name]) => name).join(" ")}`;
  if (process.env.CI) throw new Error(`missing in CI: ${how}`);
  return how;
}

/** Whether to skip, and a test name that says why. */
export const needs = (tools: Record<string, string>) => {
  const how = missing(tools);
  return { skip: how !== "", name: (name: string) => (how === "" ? name : `${name} (skipped: ${how})`) };
};

export const CC = { cc: "gcc libc6-dev" };

/** Compiles one of the C programs beside this file, static, into dist/. */
export function compile(name: string, compiler = "cc", executable = join(dist, name)): string {
  const source = join(import.meta.dir, `${name}.c`);
  const options = ["-Os", "-static", "-s", "-Wall", "-Wextra", `-DVERSION="${version}"`];
  must(compiler, ...options, "-o", executable, source);
  return executable;
}

export const pause = join(dist, "pause");
/** The C program beside which everything is measured; "" without a compiler. */
export const reference = missing(CC) === "" ? compile("reference") : "";
/** What is tested and what it is compared with. */
export const both = [pause, reference] as const;

/** Numbers from 0 up to 1 that only the seed decides (mulberry32). */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What runs a command as the image's user, without any privilege. Who is not root has none anyway. */
export const UNPRIVILEGED =
  process.getuid?.() === 0
    ? "setpriv --reuid 65535 --regid 65535 --clear-groups --bounding-set=-all --no-new-privs --pdeathsig KILL".split(
        " ",
      )
    : [];

/** PID 1 ends with 0 on SIGTERM, with pause.c's message and nothing else. */
export async function expectTerminates(pod: Pod): Promise<void> {
  expect(await pod.end("SIGTERM")).toEqual({
    stdout: "",
    stderr: "Shutting down, got signal: Terminated\n",
    exitCode: 0,
    signalCode: null,
  });
}

/** Runs `npm run image`, once in a run of the tests. */
export function buildImage(): void {
  if (Reflect.get(globalThis, "imageIsBuilt")) return;
  must("npm", "--prefix", root, "run", "-s", "image");
  Reflect.set(globalThis, "imageIsBuilt", true);
}
