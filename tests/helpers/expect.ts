/**
 * What the tests expect of every program under test. For tests only: it imports the test runner.
 */
import { describe, expect, test } from "bun:test";
import type { Pod } from "./pod.ts";
import { type Program, programs } from "./programs.ts";
import { lacking, type Needed } from "./tools.ts";

/** Tests that take all of these; where one is missing they are skipped, and their names say why. */
export function needing(...needed: readonly Needed[]) {
  const how = lacking(...needed);
  const named = (title: string) => (how === "" ? title : `${title} (skipped: ${how})`);
  return {
    skip: how !== "",
    test: (title: string, run: () => unknown, milliseconds?: number) =>
      test.skipIf(how !== "")(named(title), async () => run(), milliseconds),
    describe: (title: string, tests: () => void) => describe.skipIf(how !== "")(named(title), tests),
  };
}

/** The same tests of each program. What takes a compiler may be asked for within a test only. */
export function describeEach(tests: (program: Program) => void, of: readonly Program[] = programs): void {
  for (const program of of) {
    needing(program.tools).describe(program.name, () => tests(program));
  }
}

/** What each program does, at the same time; all have to do the same as the last, which is the reference. */
export async function expectAlike<T>(
  does: (program: Program) => Promise<T> | T,
  of: readonly Program[] = programs,
): Promise<T> {
  const there = of.filter(({ tools }) => lacking(tools) === "");
  const found = await Promise.all(
    there.map(async (program) => ({ program: program.name, does: await does(program) })),
  );
  const last = found.at(-1);
  if (last === undefined) throw new Error("no program to compare");
  expect(found).toEqual(found.map(({ program }) => ({ program, does: last.does })));
  return last.does;
}

export const WARNING = "Warning: pause should be the first process\n";
export const MESSAGE = "Shutting down, got signal: Terminated\n";

/** What `output` and `end` have of a program that wrote this and ended by itself. */
export const ended = ({ stdout = "", stderr = "", exitCode = 0 }) => ({
  stdout,
  stderr,
  exitCode,
  signalCode: null,
});

/** PID 1 ends with 0 on SIGTERM, with pause.c's message and nothing else. */
export const expectTerminates = async (pod: Pod) =>
  expect(await pod.end("SIGTERM")).toEqual(ended({ stderr: MESSAGE }));
