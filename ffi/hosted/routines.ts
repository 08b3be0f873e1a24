/**
 * The routines that run when JavaScript no longer does: the signal handlers, and the loop in which the program stays.
 */
import { aarch64 } from "../assembler/aarch64.ts";
import { assemble, type FunctionEncoder, type Part, type Step, type Value } from "../assembler/routine.ts";
import { x86_64 } from "../assembler/x86_64.ts";
import { WNOHANG } from "../constants.ts";
import { type Call, type End, explore, handlerProgram, MAX_REPEATS } from "../explore.ts";
import { ascii, type Handler } from "../libc.ts";
import { lower } from "../lower.ts";
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

/** Writes parts behind those that a page has. Returns the addresses of their labels. */
function write(page: Page, parts: readonly Part[]): Readonly<Record<string, number>> {
  const start = page.start + page.used;
  const { labels, size } = assemble(encoder, parts, page.memory.subarray(page.used), start);
  page.used += size;
  return labels;
}

/** The compiler has seen every path of every handler, and refused what is no program; here one run for each is enough. */
const WATCH = { most: MAX_REPEATS, loop: MAX_REPEATS + 1 };

/** Writes the routine of a handler for a signal into a page. Returns its address. */
export function writeHandler(libc: LibcFunctions, page: Page, handler: Handler, signo: number): number {
  const parts: Part[] = [];
  const target = {
    call(made: Call, label: string): readonly Step[] {
      if (made.word === "waitpid") return [call(libc.waitpid, made.pid, 0, made.options)];
      if (made.word !== "write") throw new Error(`a handler calls ${made.word}`);
      const data = ascii(made.text);
      const text = `${label}.text`;
      parts.push({ label: text, data, alignment: ALIGNMENT });
      return [call(libc.write, made.fd, { label: text }, data.length)];
    },
    end: (end: End): readonly Step[] => ("exit" in end ? [call(libc._exit, end.exit)] : [{ end: true }]),
  };
  const body = lower(explore(handlerProgram(handler, signo, WATCH), []), "handler", target);
  const begin: Step = { begin: addressOf(libc.__errno_location) };
  parts.push({ label: "entry", steps: [begin, ...body], alignment: ALIGNMENT });
  return write(page, parts).entry ?? 0;
}

/** What the loop is made for. */
export interface Rest {
  /** The signal mask to restore. */
  readonly mask: Uint8Array;
  /** Whether SIGCHLD has a handler. */
  readonly reaps: boolean;
  /** Pages that are needed no more when the program rests. */
  readonly scratch: Range;
}

/** Where the program stays: the addresses of its loop. */
export interface Loop {
  readonly loop: number;
  /** The same, after what is left of the runtime has gone. */
  readonly rest: number;
}

/**
 * Writes the loop in which the program stays into a page.
 *
 * It first hands the process back as it came, with its signal mask, and closes it to all others. Every signal is blocked
 * until then.
 */
export function writeLoop(libc: LibcFunctions, page: Page, { mask, reaps, scratch }: Rest): Loop {
  const loop: Step[] = [{ begin: addressOf(libc.__errno_location) }];
  // Nobody without CAP_SYS_PTRACE can look into it or take it over (PR_SET_DUMPABLE(2const), ptrace(2)): else every
  // container of the pod with PID 1's user could, and would live on in PID 1 when it has itself ended. Not where
  // that user is root: a runtime that is root without that capability could not join the pod any more.
  if (libc.geteuid() !== 0) loop.push(call(libc.prctl, PR_SET_DUMPABLE, SUID_DUMP_DISABLE));
  // What died before SIGCHLD was caught, during a start that is longer than a C program's, is reaped at once.
  if (reaps)
    loop.push({ label: "reap" }, call(libc.waitpid, -1, 0, WNOHANG), { jump: "reap", when: "positive" });
  loop.push(call(libc.sigprocmask, SIG_SETMASK, { label: "mask" }, 0));
  loop.push({ label: "pause" }, call(libc.pause), { jump: "pause" });
  // The last that is left of the runtime: the pages that unmapped it.
  const rest = [call(libc.munmap, scratch.start, scratch.end - scratch.start), { jump: "loop" }];
  const labels = write(page, [
    { label: "mask", data: mask, alignment: ALIGNMENT },
    { label: "loop", steps: loop, alignment: ALIGNMENT },
    { label: "rest", steps: rest, alignment: ALIGNMENT },
  ]);
  return { loop: labels.loop ?? 0, rest: labels.rest ?? 0 };
}
