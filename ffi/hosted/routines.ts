/**
 * The routines that run when JavaScript no longer does: the signal handlers, and the loop in which the program stays.
 */
import { aarch64 } from "../assembler/aarch64.ts";
import { assemble, type FunctionEncoder, type Part, type Step, type Value } from "../assembler/routine.ts";
import { x86_64 } from "../assembler/x86_64.ts";
import { SIGCHLD } from "../constants.ts";
import type { Call, Handler } from "../libc.ts";
import { addressOf, type LibcFunctions, PR_SET_DUMPABLE, SIG_SETMASK, SUID_DUMP_DISABLE } from "./libc.ts";
import type { Page } from "./page.ts";
import type { Range } from "./proc.ts";

/** Suits every type of data and every branch target, in bytes. */
export const ALIGNMENT = 16;

export const encoder: FunctionEncoder = process.arch === "arm64" ? aarch64 : x86_64;

/** A call of a libc function. */
export const call = (libcFunction: object, ...values: readonly Value[]): Step => ({
  call: addressOf(libcFunction),
  values,
});

/** The label of a handler's routine for a signal. */
export const labelOf = (handler: string, signo: number): string => `${handler}.${signo}`;

/** A handler's calls as steps. Bytes that they pass become parts of their own, before the routine. */
function stepsOf(libc: LibcFunctions, label: string, calls: readonly Call[], parts: Part[]): Step[] {
  const steps: Step[] = [];
  for (const one of calls) {
    const again = `${label}, call ${steps.length}`;
    const values: Value[] = [];
    for (const argument of one.arguments) {
      if (argument instanceof Uint8Array) {
        const text = `${again}, data ${values.length}`;
        parts.push({ label: text, data: argument, alignment: ALIGNMENT });
        values.push({ label: text });
      } else values.push(argument ?? 0);
    }
    steps.push({ label: again }, call(libc[one.function], ...values));
    if (one.whilePositive) steps.push({ jump: again, when: "positive" });
  }
  return steps;
}

/** The addresses of the routines in memory. */
export interface Routines {
  readonly page: Range;
  /** Of the handlers, by their labels. */
  readonly handlers: Readonly<Record<string, number>>;
  /** Where the program stays. */
  readonly loop: number;
  /** The same, after what is left of the runtime has gone. */
  readonly rest: number;
}

/**
 * Writes all routines into a page and seals it.
 *
 * The loop first hands the process back as it came, with its signal mask, and closes it to all others. Every signal is
 * blocked until then.
 *
 * @param mask the signal mask to restore
 * @param scratch pages that are needed no more when the program rests
 */
export function writeRoutines(
  libc: LibcFunctions,
  handlers: Readonly<Record<string, Handler>>,
  mask: Uint8Array,
  page: Page,
  scratch: Range,
): Routines {
  const begin: Step = { begin: addressOf(libc.__errno_location) };
  const parts: Part[] = [];
  const routines: Part[] = [];
  const add = (label: string, steps: readonly Step[]) =>
    routines.push({ label, steps, alignment: ALIGNMENT });

  // What died before SIGCHLD was caught, during a start that is longer than a C program's, is reaped at once.
  const loop: Step[] = [];
  for (const name of Object.keys(handlers)) {
    const handler = handlers[name];
    for (const signo of handler?.signals ?? []) {
      const label = labelOf(name, signo);
      const steps = stepsOf(libc, label, handler?.calls(signo) ?? [], parts);
      add(label, [begin, ...steps, { end: true }]);
      if (signo === SIGCHLD) loop.push(...stepsOf(libc, "loop", handler?.calls(signo) ?? [], parts));
    }
  }

  // Nobody without CAP_SYS_PTRACE can look into it or take it over (PR_SET_DUMPABLE(2const), ptrace(2)): else every
  // container of the pod with PID 1's user could, and would live on in PID 1 when it has itself ended. Not where
  // that user is root: a runtime that is root without that capability could not join the pod any more.
  if (libc.geteuid() !== 0) loop.unshift(call(libc.prctl, PR_SET_DUMPABLE, SUID_DUMP_DISABLE));
  parts.push({ label: "mask", data: mask, alignment: ALIGNMENT });
  loop.push(call(libc.sigprocmask, SIG_SETMASK, { label: "mask" }, 0));
  loop.push({ label: "pause" }, call(libc.pause), { jump: "pause" });
  add("loop", [begin, ...loop]);

  // The last that is left of the runtime: the pages that unmapped it.
  add("rest", [call(libc.munmap, scratch.start, scratch.end - scratch.start), { jump: "loop" }]);

  const { labels } = assemble(encoder, [...parts, ...routines], page.memory, page.start);
  page.seal();
  return { page, handlers: labels, loop: labels.loop ?? 0, rest: labels.rest ?? 0 };
}
