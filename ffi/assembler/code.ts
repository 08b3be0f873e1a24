/**
 * Machine code while it is written: bytes, the labels among them, and what each instruction is called.
 */

/** Steps that no routine can be made of. Thrown before any code exists, never while it runs. */
export class UnsupportedRoutine extends Error {
  override name = "UnsupportedRoutine";
}

/** One instruction or datum, for a listing. */
export interface Line {
  readonly address: number;
  /** In bytes. */
  readonly size: number;
  /** The instruction as binutils' objdump prints it, without its names for addresses. */
  readonly text: string;
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
  /** A label that was not where the code that refers to it took it to be, if there is one in this pass. */
  unsettled: string | undefined;
  /** How many labels without a name of their own this pass has asked for. */
  locals: number;
  /** Where the listing is kept; without one no text is made. */
  readonly listing?: Line[] | undefined;
  /** The `reason` of the lines that follow. */
  reason: string;
}

/** What an instruction is called. A function is asked only when there is a listing: a start has no time for texts. */
export type Text = string | (() => string);

function list(code: Code, text: Text, size: number, target: string | undefined): void {
  code.listing?.push({
    address: here(code) - size,
    size,
    text: typeof text === "string" ? text : text(),
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
export function word(code: Code, text: Text, value: number, target?: string): void {
  for (let shift = 0; shift < 32; shift += 8) put(code, (value >> shift) & 0xff);
  list(code, text, 4, target);
}

/** The four bytes of the lower half of an integer, least significant first, in two's complement. */
export const int32 = (value: number): readonly number[] => [
  value & 0xff,
  (value >> 8) & 0xff,
  (value >> 16) & 0xff,
  (value >> 24) & 0xff,
];

/** The upper half of a safe integer in two's complement, as an unsigned integer. */
export const upperHalf = (value: number): number => ((value - (value >>> 0)) / 2 ** 32) >>> 0;

/** A number as objdump prints it; negative ones in two's complement of this many bits. */
export const hex = (value: number, bits = 64): string =>
  `0x${BigInt.asUintN(bits, BigInt(value)).toString(16)}`;

/** Writes data. */
export function data(code: Code, values: Uint8Array): void {
  for (let index = 0; index < values.length; index++) put(code, values[index] ?? 0);
  const text = () => JSON.stringify(new TextDecoder("latin1").decode(values));
  list(code, text, values.length, undefined);
}

/** Says that a label is here. */
export function label(code: Code, name: string): void {
  if ((code.labels[name] ?? here(code)) !== here(code)) code.unsettled = name;
  code.labels[name] = here(code);
}

/** A label for what only one step refers to: the same one in every pass. */
export const local = (code: Code): string => `.${code.locals++}`;

/**
 * The address of a label. In the first pass it may not be known yet: then it is far from here, so that whoever
 * chooses between a short and a long form takes the long one, and later passes only shorten.
 */
export function addressOf(code: Code, name: string): number {
  const address = code.labels[name];
  if (address === undefined) code.unsettled = name;
  return address ?? here(code) + FAR;
}

/** A distance that every architecture's long jump can bridge, but x86-64's short one cannot, in bytes. */
const FAR = 1024;

/** Moves to the next multiple of this many bytes, with zeros between. */
export function align(code: Code, alignment: number): void {
  while (here(code) % alignment !== 0) put(code, 0);
}
