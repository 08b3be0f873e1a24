/**
 * Native routines: short lists of libc calls, turned into machine code.
 *
 * A signal arrives between any two instructions, and entering JavaScript there is undefined. So a signal
 * handler is data, written down in TypeScript and assembled before the first signal can reach it.
 *
 * @example
 * ```ts
 * const sigreap = handler([SIGCHLD], () => [whilePositive(call(waitpid, -1, NULL, WNOHANG))]);
 * const loop = routine(() => [forever(call(pause))]);
 * ```
 */
import { type Pointer, toArrayBuffer } from "bun:ffi";
import { aarch64 } from "./aarch64.ts";
import {
  __errno_location,
  MAP_ANONYMOUS,
  MAP_FAILED,
  MAP_PRIVATE,
  mmap,
  mprotect,
  NULL,
  PROT_EXEC,
  PROT_READ,
  PROT_WRITE,
  STDERR_FILENO,
  strsignal,
  write,
} from "./libc.ts";
import { x86_64 } from "./x86_64.ts";

/** An integer, a null pointer, or bytes whose address the routine passes (a string becomes a C string). */
export type Argument = number | null | string | Uint8Array;

/** One call of a C function with constant arguments. */
export interface Call {
  readonly address: number;
  readonly arguments: readonly Argument[];
}

/** Addresses from `start` up to, but not including, `end`. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** A call, or a call that is repeated while it returns more than 0, or one repeated forever. */
export type Step = Call | { readonly repeat: "while positive" | "forever"; readonly call: Call };

/** Machine code and the data it points to, as they grow. */
export class Code {
  /** Bytes written so far. */
  offset = 0;
  readonly #view: DataView;

  /** @param memory where the bytes go; what does not fit in it throws a RangeError */
  constructor(memory: ArrayBuffer) {
    this.#view = new DataView(memory);
  }

  bytes(...bytes: readonly number[]): void {
    for (const byte of bytes) this.#view.setUint8(this.offset++, byte);
  }

  /** The lower 32 bits of an integer, least significant byte first, in two's complement. */
  int32(value: number): void {
    this.#view.setInt32(this.offset, value, true);
    this.offset += 4;
  }

  /** A safe integer as 64 bits, least significant byte first, in two's complement. */
  int64(value: number): void {
    this.int32(value % 2 ** 32);
    this.int32(Math.floor(value / 2 ** 32));
  }

  /** Bytes that code points to, at an offset that suits every type and every branch. */
  data(bytes: Uint8Array): number {
    const start = this.align();
    new Uint8Array(this.#view.buffer).set(bytes, start);
    this.offset += bytes.length;
    return start;
  }

  /** Moves to the next multiple of 16 bytes. */
  align(): number {
    this.offset = Math.ceil(this.offset / 16) * 16;
    return this.offset;
  }
}

/** How one architecture says what a routine needs. */
export interface Encoder {
  /** Saves the registers that `epilogue` restores, aligns the stack, and keeps the errno that is found there. */
  prologue(code: Code, errnoLocation: number): void;
  /** Calls `address` with up to six integers of 64 bits. */
  call(code: Code, address: number, values: readonly number[]): void;
  /** Jumps to the offset `target` if the last call returned an int greater than 0. */
  jumpIfPositive(code: Code, target: number): void;
  /** Jumps to the offset `target`. */
  jump(code: Code, target: number): void;
  /** Puts errno and the saved registers back and returns. */
  epilogue(code: Code): void;
}

/** A list of calls that no routine can be made of. Thrown before any code exists, never while it runs. */
export class UnsupportedRoutine extends Error {
  override name = "UnsupportedRoutine";
}

/** Code and data of all routines: the smallest page of Linux on x86-64 and arm64, in bytes. */
const PAGE_SIZE = 4096;

/** Both ABIs pass at least this many integers in registers (x86-64 psABI 3.2.3: 6, AAPCS64 6.8.2: 8). */
const MAX_ARGUMENTS = 6;

/**
 * The address of a function loaded by `dlopen` of bun:ffi, which keeps it in the property `ptr`.
 *
 * @throws {UnsupportedRoutine} if the function is not one of those.
 */
export function addressOf(libcFunction: object): number {
  const address: unknown = Reflect.get(libcFunction, "ptr");
  if (typeof address !== "number") throw new UnsupportedRoutine("only a function of libc can be called");
  return address;
}

/**
 * Describes a call of a libc function; it is made when the routine runs.
 *
 * @throws {UnsupportedRoutine} if there are more than six arguments, or one that fits no register.
 */
export function call(libcFunction: object, ...args: readonly Argument[]): Call {
  if (args.length > MAX_ARGUMENTS)
    throw new UnsupportedRoutine(`${args.length} arguments, ${MAX_ARGUMENTS} registers`);
  for (const value of args)
    if (typeof value === "number" && !Number.isSafeInteger(value))
      throw new UnsupportedRoutine(`${value} fits no register`);
  return { address: addressOf(libcFunction), arguments: args };
}

/** Repeats a call that returns an int while it is greater than 0. */
export const whilePositive = (repeated: Call): Step => ({ repeat: "while positive", call: repeated });

/** Repeats a call forever. Nothing after it is reached. */
export const forever = (repeated: Call): Step => ({ repeat: "forever", call: repeated });

/**
 * psignal(3), for a handler: the same bytes on standard error in the same single write.
 *
 * glibc's own psignal takes a lock and is AS-Unsafe, so libc is asked for the text now, and the routine only
 * calls write(2).
 */
export function psignal(signo: number, message: string): Call {
  const text = new TextEncoder().encode(`${message}: ${strsignal(signo)}\n`);
  return call(write, STDERR_FILENO, text, text.length);
}

/**
 * Encodes a routine, the data it points to first.
 *
 * @param base the address of `code`'s memory
 * @returns the offset of the routine's first instruction
 */
export function assemble(
  encoder: Encoder,
  errnoLocation: number,
  steps: readonly Step[],
  code: Code,
  base: number,
): number {
  const passed = (argument: Argument): number => {
    if (argument === null) return 0;
    if (typeof argument === "number") return argument;
    return (
      base + code.data(typeof argument === "string" ? new TextEncoder().encode(`${argument}\0`) : argument)
    );
  };
  const calls = steps.map((step) => {
    const { address, arguments: args } = "call" in step ? step.call : step;
    return { address, values: args.map(passed), repeat: "repeat" in step ? step.repeat : "never" };
  });
  const entry = code.align();
  encoder.prologue(code, errnoLocation);
  for (const { address, values, repeat } of calls) {
    const start = code.offset;
    encoder.call(code, address, values);
    if (repeat === "while positive") encoder.jumpIfPositive(code, start);
    if (repeat === "forever") encoder.jump(code, start);
  }
  encoder.epilogue(code);
  return entry;
}

/** A routine that was declared, and its address once it is in memory. */
export interface Routine {
  readonly steps: (code: Range) => readonly Step[];
  address: number | undefined;
}

/** A signal handler: one routine for each signal it is declared for, with the signal's number built in. */
export type Handler = ReadonlyMap<number, Routine>;

const declared: Routine[] = [];

/** Declares a routine. Its steps are asked for when the first address is needed: that of all routines at once. */
export function routine(steps: (code: Range) => readonly Step[]): Routine {
  const declaration: Routine = { steps, address: undefined };
  declared.push(declaration);
  return declaration;
}

/** Declares a handler for these signals; `steps` gets the number of the signal it is to handle. */
export function handler(signals: readonly number[], steps: (signo: number) => readonly Step[]): Handler {
  return new Map(signals.map((signo) => [signo, routine(() => steps(signo))]));
}

/**
 * The address of a declared routine, in a page that holds all routines and can be executed, but not written.
 *
 * The kernel makes arm64's instruction cache coherent when a page first becomes executable
 * (arch/arm64/mm/flush.c, __sync_icache_dcache), which is why the page is a fresh one.
 *
 * @throws {UnsupportedRoutine} if the routines fill more than a page, or one was declared too late.
 * @throws {Error} if the kernel gives no such page.
 */
export function load(wanted: Routine): number {
  if (wanted.address === undefined) {
    const page = Number(mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (page === MAP_FAILED) throw new Error("no memory for the signal handlers");
    const encoder = process.arch === "arm64" ? aarch64 : x86_64;
    const code = new Code(toArrayBuffer(page as Pointer, 0, PAGE_SIZE));
    for (const declaration of declared.splice(0))
      declaration.address =
        page +
        assemble(
          encoder,
          addressOf(__errno_location),
          declaration.steps({ start: page, end: page + PAGE_SIZE }),
          code,
          page,
        );
    if (mprotect(page as Pointer, PAGE_SIZE, PROT_READ | PROT_EXEC) < 0)
      throw new Error("no executable memory for the signal handlers");
  }
  if (wanted.address === undefined)
    throw new UnsupportedRoutine("the routine was declared after the first was loaded");
  return wanted.address;
}
