/**
 * What the tests expect of every program under test. For tests only: it imports the test runner.
 */
import { describe, expect } from "bun:test";
import type { Pod } from "./pod.ts";
import { type Program, programs } from "./programs.ts";
import { needs } from "./tools.ts";

/** The same tests of each program. What takes a compiler may be asked for within a test only. */
export function describeEach(tests: (program: Program) => void, of: readonly Program[] = programs): void {
  for (const program of of) {
    const { skip, name } = needs(program.tools);
    describe.skipIf(skip)(name(program.name), () => tests(program));
  }
}

/** What each program does, at the same time; all have to do the same as the last, which is the reference. */
export async function expectAlike<T>(
  does: (program: Program) => Promise<T> | T,
  of: readonly Program[] = programs,
): Promise<T> {
  const there = of.filter(({ tools }) => !needs(tools).skip);
  const found = await Promise.all(
    there.map(async (program) => ({ program: program.name, does: await does(program) })),
  );
  const last = found.at(-1);
  if (last === undefined) throw new Error("no program to compare");
  expect(found).toEqual(found.map(({ program }) => ({ program, does: last.does })));
  return last.does;
}

export const MESSAGE = "Shutting down, got signal: Terminated\n";

/** PID 1 ends with 0 on SIGTERM, with pause.c's message and nothing else. */
export async function expectTerminates(pod: Pod): Promise<void> {
  expect(await pod.end("SIGTERM")).toEqual({
    stdout: "",
    stderr: MESSAGE,
    exitCode: 0,
    signalCode: null,
  });
}
