/**
 * Native routines: short lists of libc calls, turned into machine code.
 *
 * A signal arrives between any two instructions, and entering JavaScript there is undefined. So a signal
 * handler is data, written down in TypeScript and assembled before the first signal can reach it.
 *
 * What runs at every start, here and in the other modules of ffi/, does without most of JavaScript's library: its
 * parts come into being when they are first used, and Math, Reflect, TextEncoder, or a method of Array that is
 * itself written in JavaScript (map, filter, sort …) then takes as long as all the rest of this file.
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
  addressOf,
  cString,
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

/** An integer, a null pointer, or bytes whose address the routine passes. */
export type Argument = number | null | Uint8Array;

/** One call of a C function with constant arguments. */
export interface Call {
  readonly address: number;
  readonly arguments: readonly Argument[];
  /** To be repeated while it returns an int greater than 0, or forever. */
  readonly repeat?: "while positive" | "forever";
}

/** Addresses from `start` up to, but not including, `end`. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** Memory that is being filled from its start. What does not fit throws a RangeError. */
export interface Code {
  readonly view: DataView;
  /** Bytes written so far. */
  offset: number;
}

export function bytes(code: Code, ...values: readonly number[]): void {
  for (const value of values) code.view.setUint8(code.offset++, value);
}

/** The lower 32 bits of an integer, least significant byte first, in two's complement. */
export function int32(code: Code, value: number): void {
  code.view.setInt32(code.offset, value, true);
  code.offset += 4;
}

/** A safe integer as 64 bits, least significant byte first, in two's complement. */
export function int64(code: Code, value: number): void {
  const low = value >>> 0;
  int32(code, low);
  int32(code, (value - low) / 2 ** 32);
}

/** Eight bytes as an unsigned integer, least significant byte first; exact below 2 ** 53. */
export const uint64 = (view: DataView, offset: number): number =>
  view.getUint32(offset, true) + view.getUint32(offset + 4, true) * 2 ** 32;

/** Moves to a multiple of 16 bytes, which suits every type of data and every branch target. */
function align(code: Code): number {
  code.offset = (code.offset + 15) & ~15;
  return code.offset;
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
 * Describes a call of a libc function; it is made when the routine runs.
 *
 * @throws {TypeError} if the function was not loaded from libc.
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

/** Describes a call of a routine that is in memory. */
export const goto = (target: Routine): Call => ({ address: load(target), arguments: [] });

/** Repeats a call that returns an int while it is greater than 0. */
export const whilePositive = (repeated: Call): Call => ({ ...repeated, repeat: "while positive" });

/** Repeats a call forever. Nothing after it is reached. */
export const forever = (repeated: Call): Call => ({ ...repeated, repeat: "forever" });

/**
 * psignal(3), for a handler: the same bytes on standard error in the same single write.
 *
 * glibc's own psignal takes a lock and is AS-Unsafe, so libc is asked for the text now, and the routine only
 * calls write(2).
 */
export function psignal(signo: number, message: string): Call {
  const text = cString(`${message}: ${strsignal(signo)}\n`);
  return call(write, STDERR_FILENO, text, text.length - 1);
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
  calls: readonly Call[],
  code: Code,
  base: number,
): number {
  const passed: number[][] = [];
  for (const { arguments: args } of calls) {
    const values: number[] = [];
    for (const value of args) {
      if (value === null || typeof value === "number") {
        values.push(value ?? 0);
      } else {
        values.push(base + align(code));
        for (let index = 0; index < value.length; index++) bytes(code, value[index] ?? 0);
      }
    }
    passed.push(values);
  }
  const entry = align(code);
  encoder.prologue(code, errnoLocation);
  for (const { address, repeat } of calls) {
    const start = code.offset;
    encoder.call(code, address, passed.shift() ?? []);
    if (repeat === "while positive") encoder.jumpIfPositive(code, start);
    if (repeat === "forever") encoder.jump(code, start);
  }
  encoder.epilogue(code);
  return entry;
}

/** A routine that was declared, and its address once it is in memory. */
export interface Routine {
  /** What it does, given where it will lie. */
  readonly calls: (page: Range) => readonly Call[];
  address: number | undefined;
}

/** A signal handler: one routine for each signal it is declared for, with the signal's number built in. */
export interface Handler {
  readonly signals: readonly number[];
  /** In the order of the signals. */
  readonly routines: readonly Routine[];
}

let declared: Routine[] = [];

/** Declares a routine. Its calls are asked for when the first address is needed: that of all routines at once. */
export function routine(calls: (page: Range) => readonly Call[]): Routine {
  const declaration: Routine = { calls, address: undefined };
  declared.push(declaration);
  return declaration;
}

/** Declares a handler for these signals; `calls` gets the number of the signal it is to handle. */
export function handler(signals: readonly number[], calls: (signo: number) => readonly Call[]): Handler {
  const routines: Routine[] = [];
  for (const signo of signals) routines.push(routine(() => calls(signo)));
  return { signals, routines };
}

/**
 * The address of a declared routine, in a page that holds all routines and can be executed, but not written.
 *
 * The kernel makes arm64's instruction cache coherent when a page first becomes executable
 * (arch/arm64/mm/flush.c, __sync_icache_dcache), which is why the page is a fresh one.
 *
 * @throws {UnsupportedRoutine} if the routine was declared after the others were put into memory.
 * @throws {RangeError} if the routines fill more than a page.
 * @throws {Error} if the kernel gives no such page.
 */
export function load(wanted: Routine): number {
  if (declared.length > 0 && wanted.address === undefined) loadDeclared();
  if (wanted.address === undefined) throw new UnsupportedRoutine("the routine was declared too late");
  return wanted.address;
}

function loadDeclared(): void {
  const start = Number(mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (start === MAP_FAILED) throw new Error("no memory for the signal handlers");
  const encoder = process.arch === "arm64" ? aarch64 : x86_64;
  const code: Code = { view: new DataView(toArrayBuffer(start as Pointer, 0, PAGE_SIZE)), offset: 0 };
  const errnoLocation = addressOf(__errno_location);
  for (const declaration of declared) {
    const calls = declaration.calls({ start, end: start + PAGE_SIZE });
    declaration.address = start + assemble(encoder, errnoLocation, calls, code, start);
  }
  declared = [];
  if (mprotect(start as Pointer, PAGE_SIZE, PROT_READ | PROT_EXEC) < 0)
    throw new Error("no executable memory for the signal handlers");
}
