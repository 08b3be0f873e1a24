/**
 * Machine code while it is written: bytes, the labels among them, and what each instruction is called.
 */

/** Steps that no routine can be made of. Thrown before any code exists, never while it runs. */
export class UnsupportedRoutine extends Error {
  override name = "UnsupportedRoutine";

  /** @param reason that of the step, or "" */
  constructor(
    message: string,
    readonly reason = "",
  ) {
    super(message);
  }
}

/** Refuses the step that is being encoded. */
export function refuse(code: Code, message: string): never {
  throw new UnsupportedRoutine(message, code.reason);
}

/** One instruction or datum, for a listing. */
export interface Line {
  readonly address: number;
  /** In bytes. */
  readonly size: number;
  /** The instruction as binutils' objdump prints it, without its names for addresses; of data, a string. */
  readonly text: string;
  readonly isData: boolean;
  /** The label that it refers to. */
  readonly target: string | undefined;
  /** What it is there for, in the words of who asked for it. */
  readonly reason: string;
}

/** Memory that is being filled from its start. */
export interface Code {
  readonly memory: Uint8Array;
  /** The address that the first byte will have. */
  readonly base: number;
  /** Bytes written so far. */
  offset: number;
  /** The addresses of labels, as this pass or the one before found them. */
  readonly labels: Record<string, number>;
  /** In the first pass a label that is not known yet may come later, and in others it may not. */
  readonly isFirstPass: boolean;
  /** Whether every label was where the code that refers to it took it to be, in this pass. */
  isSettled: boolean;
  /** How many jumps this pass has written, and which of all jumps have outgrown their short form in one pass. */
  jumps: number;
  readonly longJumps: boolean[];
  /** How many labels without a name of their own this pass has asked for. */
  locals: number;
  /** Where the listing is kept; without one no text is made. */
  readonly listing?: Line[] | undefined;
  /** The `reason` of the lines that follow. */
  reason: string;
}

/** What an instruction is called. A function is asked only when there is a listing: a start has no time for texts. */
export type Text = string | (() => string);

function list(code: Code, text: Text, size: number, target: string | undefined, isData = false): void {
  code.listing?.push({
    address: here(code) - size,
    size,
    text: typeof text === "string" ? text : text(),
    isData,
    target,
    reason: code.reason,
  });
}

/** The address of what comes next. */
export const here = (code: Code): number => code.base + code.offset;

/** Writes a byte. Throws a RangeError if there is no room for it. */
function put(code: Code, value: number): void {
  if (code.offset >= code.memory.length) throw new RangeError("the routines fill more than their memory");
  code.memory[code.offset++] = value;
}

/** Writes the bytes of one instruction, which may refer to a label. */
export function bytes(code: Code, text: Text, values: readonly number[], target?: string): void {
  for (const value of values) put(code, value);
  list(code, text, values.length, target);
}

/** Writes an instruction of 32 bits, least significant byte first, which may refer to a label. */
export const word = (code: Code, text: Text, value: number, target?: string): void =>
  bytes(code, text, int32(value), target);

/** The four bytes of the lower half of an integer, least significant first, in two's complement. */
export const int32 = (value: number): readonly number[] => [
  value & 0xff,
  (value >> 8) & 0xff,
  (value >> 16) & 0xff,
  (value >> 24) & 0xff,
];

/** The upper half of a safe integer in two's complement, as an unsigned integer. */
export const upperHalf = (value: number): number => ((value - (value >>> 0)) / 2 ** 32) >>> 0;

/** A number as objdump prints it; negative ones in two's complement of 64 bits. */
export const hex = (value: number): string => `0x${BigInt.asUintN(64, BigInt(value)).toString(16)}`;

/** Writes data. */
export function data(code: Code, values: Uint8Array): void {
  for (let index = 0; index < values.length; index++) put(code, values[index] ?? 0);
  const text = () => JSON.stringify(new TextDecoder("latin1").decode(values));
  list(code, text, values.length, undefined, true);
}

/** Says that a label is here. */
export function label(code: Code, name: string): void {
  const known = code.labels[name];
  if (code.isFirstPass && known !== undefined) refuse(code, `the label ${name} is at two places`);
  if (!code.isFirstPass && known !== here(code)) code.isSettled = false;
  code.labels[name] = here(code);
}

/** A label for what only one step refers to: the same one in every pass. */
export const local = (code: Code): string => `..${code.locals++}`;

/** The address of a label, as far as it is known: until then, it is here. */
export function addressOf(code: Code, name: string): number {
  const address = code.labels[name];
  if (address !== undefined) return address;
  if (!code.isFirstPass) refuse(code, `the label ${name} is nowhere`);
  code.isSettled = false;
  return here(code);
}

/** The same as objdump prints it. */
export const shown = (code: Code, name: string): string => addressOf(code, name).toString(16);

/**
 * How far a label is from here, in bytes.
 *
 * @param bits what the distance has to fit, as a signed integer
 * @param ahead how far ahead of an instruction the processor sees the program counter, in bytes
 */
export function distanceTo(code: Code, name: string, bits: number, ahead = 0): number {
  const distance = addressOf(code, name) - here(code) - ahead;
  if (!fits(distance, bits)) refuse(code, `${name} is ${distance} bytes away: too far for an instruction`);
  return distance;
}

/** Whether a number is a signed integer of this many bits. */
export const fits = (value: number, bits: number): boolean =>
  value >= -(2 ** (bits - 1)) && value < 2 ** (bits - 1);

/**
 * Whether the next jump has its short form, which is for the nearest targets. One that had to be long in one pass is
 * long in all that follow, so that there is an end of them (routine.ts).
 */
export function isShortJump(code: Code, isNear: boolean): boolean {
  const jump = code.jumps++;
  if (!isNear) code.longJumps[jump] = true;
  return code.longJumps[jump] !== true;
}

/** Moves to the next multiple of this many bytes, with zeros between. */
export function align(code: Code, alignment: number): void {
  while (here(code) % alignment !== 0) put(code, 0);
}
