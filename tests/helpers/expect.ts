/**
 * What the tests expect of every program under test. For tests only: it imports the test runner.
 */
import { describe, expect, test } from "bun:test";
import { NAMESPACES, type Pod } from "./pod.ts";
import type { Ending } from "./process.ts";
import { type Program, programs } from "./programs.ts";
import { handlerOf, runInjected, STRACE } from "./strace.ts";
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

/** The same tests of each program. Read `executable` inside a test: for the reference it runs the compiler. */
export function describeEach(tests: (program: Program) => void, of: readonly Program[] = programs): void {
  for (const program of of) {
    needing(program.tools).describe(program.name, () => tests(program));
  }
}

/** What each program does, at the same time. All that are there have to do the same as the last: the reference, if there is a compiler. */
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
export const INTERRUPTED = "Shutting down, got signal: Interrupt\n";

/** What `output` and `end` have of a program that wrote this and ended by itself, or by this signal. */
export const ended = ({
  stdout = "",
  stderr = "",
  exitCode = 0,
  signalCode = null,
}: Partial<Ending>): Ending => ({
  stdout,
  stderr,
  exitCode: signalCode ? null : exitCode,
  signalCode,
});

/** PID 1 ends with 0 on SIGTERM, with pause.c's message and nothing else. */
export const expectTerminates = async (pod: Pod) =>
  expect(await pod.end("SIGTERM")).toEqual(ended({ stderr: MESSAGE }));

/** The signals that are caught, and pause.c's exit code where sigaction fails for one. */
export const HANDLED = { SIGINT: 1, SIGTERM: 2, SIGCHLD: 3 } as const;

/** The tests that each sigaction is refused to a program. */
export function testRefusals(command: () => readonly string[]): void {
  for (const [signal, exitCode] of Object.entries(HANDLED))
    needing(NAMESPACES, STRACE).test(`sigaction(${signal}) fails: exit code ${exitCode}`, async () => {
      const when = await handlerOf(signal, ...command());
      expect(await runInjected("rt_sigaction", `error=EINVAL:when=${when}`, ...command())).toEqual(
        ended({ stderr: WARNING, exitCode }),
      );
    });
}
