/**
 * What a routine is, and how it becomes machine code.
 *
 * A routine is a list of steps: calls with constant arguments, and jumps that depend on the last call's result or on
 * the arguments of the program. That is all that signal handlers and main need, so it is all there is.
 */
import { align, type Code, data, type Line, label } from "./code.ts";

/** The address of what has this label, counted from the program counter: it is right wherever the code lies. */
export interface Address {
  readonly label: string;
}

/** Machine words that are put on the stack for the call; what is passed is their address. */
export interface Words {
  readonly words: readonly (number | Address)[];
}

/** What is passed to a call. An integer is a safe one, in two's complement. */
export type Value = number | Address | Words;

/** What a jump depends on: the int that the last call returned. A number is what it is compared with: 0 to 127. */
export type Condition = "positive" | "negative" | number;

export type Step =
  /** Calls the C function at this address, with up to six values. */
  | { readonly call: number; readonly values: readonly Value[]; readonly reason?: string }
  /** Makes the system call of this number, with up to six values. An error is a negative result. */
  | { readonly systemCall: number; readonly values: readonly Value[]; readonly reason?: string }
  | { readonly label: string }
  | { readonly jump: string; readonly when?: Condition; readonly reason?: string }
  /** Jumps if an argument of the program, besides its name, is this text. Only where the stack is the kernel's own. */
  | { readonly jump: string; readonly whenArgument: string; readonly reason?: string }
  /** Begins a C function, and keeps the errno that this function, `int *(void)`, points to. */
  | { readonly begin: number; readonly reason?: string }
  /** Puts that errno back and returns. */
  | { readonly end: true; readonly reason?: string }
  /** Returns from a function that began with nothing. */
  | { readonly return: true; readonly reason?: string };

/** How one architecture says what every routine needs. */
export interface Encoder {
  /** What the address of an instruction is a multiple of, in bytes. */
  readonly alignment: number;
  systemCall(code: Code, number: number, values: readonly Value[]): void;
  jump(code: Code, target: string): void;
  jumpIf(code: Code, condition: Condition, target: string): void;
  jumpIfArgument(code: Code, argument: string, target: string): void;
  return(code: Code): void;
}

/** How one architecture says what routines that call C functions need besides. */
export interface FunctionEncoder extends Encoder {
  call(code: Code, address: number, values: readonly Value[]): void;
  begin(code: Code, errnoLocation: number): void;
  end(code: Code): void;
}

/** Steps that no routine can be made of. Thrown before any code exists, never while it runs. */
export class UnsupportedRoutine extends Error {
  override name = "UnsupportedRoutine";
}

/** All architectures pass at least this many integers in registers, to functions and to the kernel. */
const MAX_VALUES = 6;

/** Each pass only shortens jumps, of which a program has few. */
const MAX_PASSES = 16;

/** A part of what is assembled. Its label can be referred to by every other part. */
export type Part =
  | { readonly label: string; readonly steps: readonly Step[]; readonly alignment?: number }
  | { readonly label: string; readonly data: Uint8Array; readonly alignment?: number };

function check(values: readonly Value[]): void {
  if (values.length > MAX_VALUES)
    throw new UnsupportedRoutine(`${values.length} arguments, ${MAX_VALUES} registers`);
  for (const value of values)
    if (typeof value === "number" && !Number.isSafeInteger(value))
      throw new UnsupportedRoutine(`${value} fits no register`);
}

/** All architectures compare with such a number, or with such a character, in one instruction without a second form. */
const isSevenBits = (value: number): boolean => Number.isInteger(value) && value >= 0 && value < 128;

function checkCondition(when: Condition): void {
  if (typeof when === "number" && !isSevenBits(when))
    throw new UnsupportedRoutine(`a result is compared with 0 to 127, not with ${when}`);
}

/** Of each character there is a byte, and none of them ends the string. */
function checkArgument(text: string): void {
  for (let index = 0; index < text.length; index++) {
    const character = text.charCodeAt(index);
    if (character === 0 || !isSevenBits(character))
      throw new UnsupportedRoutine(`${JSON.stringify(text)} is not a text of ASCII characters`);
  }
  // The offset of its end, too, has to fit x86-64's signed byte.
  if (!isSevenBits(text.length))
    throw new UnsupportedRoutine("an argument is compared with at most 127 bytes");
}

function callsFunctions(encoder: Encoder | FunctionEncoder): encoder is FunctionEncoder {
  return "call" in encoder;
}

function encode(encoder: Encoder | FunctionEncoder, code: Code, step: Step): void {
  if ("label" in step) {
    label(code, step.label);
    return;
  }
  code.reason = step.reason ?? code.reason;
  if ("systemCall" in step) {
    check(step.values);
    encoder.systemCall(code, step.systemCall, step.values);
  } else if ("whenArgument" in step) {
    checkArgument(step.whenArgument);
    encoder.jumpIfArgument(code, step.whenArgument, step.jump);
  } else if ("jump" in step) {
    if (step.when === undefined) encoder.jump(code, step.jump);
    else {
      checkCondition(step.when);
      encoder.jumpIf(code, step.when, step.jump);
    }
  } else if ("return" in step) encoder.return(code);
  else if (!callsFunctions(encoder)) throw new UnsupportedRoutine("this architecture calls no functions");
  else if ("call" in step) {
    check(step.values);
    encoder.call(code, step.call, step.values);
  } else if ("begin" in step) encoder.begin(code, step.begin);
  else encoder.end(code);
}

/** What `assemble` has written. */
export interface Assembled {
  /** The address of every label. */
  readonly labels: Readonly<Record<string, number>>;
  /** The bytes that were written. */
  readonly size: number;
  /** Every instruction and datum in order, if a listing was asked for; else nothing. */
  readonly listing: readonly Line[];
}

/**
 * Writes parts in their order.
 *
 * Code may refer to what comes later. So it is written again, with the labels as they were found, until none has
 * moved. Code that refers only to what comes before it is written once.
 *
 * @param memory where to write
 * @param base the address that the first byte will have
 * @throws {UnsupportedRoutine} if a step cannot be encoded, or refers to a label that is nowhere.
 * @throws {RangeError} if the parts fill more than `memory`.
 *
 * @example
 * ```ts
 * const loop = { label: "loop", steps: [{ label: "again" }, { systemCall: 34, values: [] }, { jump: "again" }] };
 * assemble(x86_64, [loop], new Uint8Array(64), 0).size; // 9
 * ```
 */
export function assemble(
  encoder: Encoder | FunctionEncoder,
  parts: readonly Part[],
  memory: Uint8Array,
  base: number,
  withListing = false,
): Assembled {
  const labels: Record<string, number> = {};
  let unsettled: string | undefined;
  for (let pass = 0; pass < MAX_PASSES; pass++) {
    const listing: Line[] | undefined = withListing ? [] : undefined;
    const code: Code = {
      memory,
      base,
      offset: 0,
      labels,
      unsettled: undefined,
      locals: 0,
      listing,
      reason: "",
      target: undefined,
    };
    for (const part of parts) {
      align(code, part.alignment ?? encoder.alignment);
      label(code, part.label);
      code.reason = "";
      if ("data" in part) data(code, part.data);
      else for (const step of part.steps) encode(encoder, code, step);
    }
    unsettled = code.unsettled;
    if (unsettled === undefined) return { labels, size: code.offset, listing: listing ?? [] };
  }
  throw new UnsupportedRoutine(`the label ${unsettled} is nowhere, or at more than one place`);
}
