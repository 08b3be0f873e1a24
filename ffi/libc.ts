/**
 * The words that init.ts is written in: libc's names, and what they return in C.
 *
 * main and the handlers get what they call as their parameter. main's words are libc's functions where it runs under
 * Bun, and a recording where it is compiled. A handler's are always a recording: a signal arrives between any two
 * instructions, and entering JavaScript there is undefined, so a handler becomes machine code when sigaction installs it.
 */
import type { SIG_DFL, SIG_IGN } from "./constants.ts";

// unistd.h
const STDOUT_FILENO = 1;
const STDERR_FILENO = 2;

/** A stream of stdio.h, as its descriptor: nothing is buffered. */
export type Stream = typeof STDOUT_FILENO | typeof STDERR_FILENO;
export const stdout: Stream = STDOUT_FILENO;
export const stderr: Stream = STDERR_FILENO;

declare const pointer: unique symbol;
/** A `char *` of argv: strcasecmp takes it, and nothing else does. */
export type Argument = number & { readonly [pointer]: "char" };

/** What a handler may call: functions that are async-signal-safe (signal-safety(7)), and psignal as one of them. */
export interface SignalSafe {
  readonly stderr: Stream;
  /** _exit(2). */
  _exit(status: number): never;
  /**
   * psignal(3): the same bytes on standard error, in the same single write(2). libc's own takes a lock; here the text is
   * made when the handler is installed.
   */
  psignal(signo: number, message: string): void;
  /** waitpid(2). */
  waitpid(pid: number, wstatus: null, options: number): number;
  /** write(2) of a text of ASCII characters. */
  write(fd: Stream, text: string): void;
}

/** A signal handler. It has no memory of its own: what it does for a signal is settled when it is installed. */
export type Handler = (words: SignalSafe, signo: number) => void;

/** What main may ask of its surroundings, and nothing else. */
export interface Libc {
  /** The arguments of the program, without its name. */
  readonly argv: { some(isWanted: (argument: Argument) => boolean): boolean };
  readonly stderr: Stream;
  /** fprintf(3), without conversions: the text, of ASCII characters, is written as it is. */
  fprintf(stream: Stream, text: string): void;
  getpid(): number;
  /** pause(2). main calls it forever: hosted, its first call gives the runtime back and never returns. */
  pause(): number;
  /** printf(3), without conversions. */
  printf(text: string): void;
  /** sigaction(2), with an empty sa_mask. */
  sigaction(
    signo: number,
    act: { readonly sa_handler: Handler | typeof SIG_DFL | typeof SIG_IGN; readonly sa_flags?: number },
    oldact: null,
  ): number;
  /** strcasecmp(3), in the C locale. */
  strcasecmp(argument: Argument, text: string): number;
}

/** The program: returns the exit status. */
export type Main = (words: Libc) => number;

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
