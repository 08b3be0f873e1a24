/**
 * The words that init.ts is written in: libc's names, and what main and a signal handler may say with them.
 *
 * main is called with the functions that it calls: hosted, they are libc's; freestanding, they record what main does
 * (ffi/hosted/start.ts, ffi/freestanding/start.ts). A handler calls nothing. A signal arrives between any two
 * instructions, and entering JavaScript there is undefined: so a handler is a list of calls, which becomes machine
 * code before the first signal can reach it.
 */
import { SIGCHLD, SIGINT, SIGTERM } from "./constants.ts";

// unistd.h
const STDOUT_FILENO = 1;
const STDERR_FILENO = 2;

/** A stream of stdio.h, as its descriptor: nothing is buffered. */
export type Stream = typeof STDOUT_FILENO | typeof STDERR_FILENO;
export const stdout: Stream = STDOUT_FILENO;
export const stderr: Stream = STDERR_FILENO;

/** What a handler passes: an integer, a null pointer, or bytes whose address is passed. */
export type Argument = number | null | Uint8Array;

/** One call of a handler. Every function here is async-signal-safe (signal-safety(7)). */
export interface Call {
  readonly function: "_exit" | "waitpid" | "write";
  readonly arguments: readonly Argument[];
  /** The word of init.ts that stands for it. */
  readonly word: "_exit" | "psignal" | "waitpid";
  /** To be made again as long as it returns more than 0. */
  readonly whilePositive?: true;
}

/** A signal handler: what is called for each of the signals that it is for. */
export interface Handler {
  readonly signals: readonly number[];
  readonly calls: (signo: number) => readonly Call[];
}

/**
 * Declares the handler of these signals.
 *
 * @example
 * ```ts
 * const sigreap = handler([SIGCHLD], () => [whilePositive(waitpid(-1, NULL, WNOHANG))]);
 * ```
 */
export const handler = (signals: readonly number[], calls: (signo: number) => readonly Call[]): Handler => ({
  signals,
  calls,
});

/** _exit(2), in a handler. */
export const _exit = (status: number): Call => ({ function: "_exit", arguments: [status], word: "_exit" });

/** waitpid(2), in a handler. */
export const waitpid = (pid: number, status: null, options: number): Call => ({
  function: "waitpid",
  arguments: [pid, status, options],
  word: "waitpid",
});

/** while (call() > 0) {}, in a handler. */
export const whilePositive = (call: Call): Call => ({ ...call, whilePositive: true });

/** strsignal(3) in the C locale, for the signals that can have a handler here. */
const SIGNAL_NAMES: Readonly<Record<number, string>> = {
  [SIGINT]: "Interrupt",
  [SIGTERM]: "Terminated",
  [SIGCHLD]: "Child exited",
};

/**
 * psignal(3), in a handler: the same bytes on standard error, in the same single write. libc's own takes a lock and is
 * not async-signal-safe, so the text is made now, and the handler only calls write(2).
 *
 * @throws {RangeError} if the signal has no name here.
 */
export function psignal(signo: number, message: string): Call {
  const name = SIGNAL_NAMES[signo];
  if (name === undefined) throw new RangeError(`signal ${signo} has no name here`);
  const text = ascii(`${message}: ${name}\n`);
  return { function: "write", arguments: [stderr, text, text.length], word: "psignal" };
}

/**
 * The bytes of a text of ASCII characters. TextEncoder takes longer to come into being than this whole module.
 *
 * @throws {RangeError} if it has others, which would become other texts.
 */
export function ascii(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) {
    const character = text.charCodeAt(index);
    if (character > 127) throw new RangeError(`${text} is not a text of ASCII characters`);
    bytes[index] = character;
  }
  return bytes;
}

/** What main may ask of its surroundings, and nothing else: the functions return what they return in C. */
export interface Libc {
  /** The arguments of the program, without its name. */
  readonly argv: { includes(argument: string): boolean };
  readonly stderr: Stream;
  /** fprintf(3), without conversions: the text is written as it is. */
  fprintf(stream: Stream, text: string): number;
  getpid(): number;
  /** pause(2). main calls it forever: hosted, its first call gives the runtime back and never returns. */
  pause(): number;
  /** printf(3), without conversions. */
  printf(text: string): number;
  sigaction(
    signo: number,
    act: { readonly sa_handler: Handler; readonly sa_flags?: number },
    oldact: null,
  ): number;
}

/** The program: returns the exit status. */
export type Main = (libc: Libc) => number;
