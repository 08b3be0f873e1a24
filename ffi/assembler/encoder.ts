/**
 * An architecture as a table of what one to three instructions say, and what every architecture makes of it: calls
 * with what is passed in registers and on the stack, and jumps.
 */
import { type Code, refuse } from "./code.ts";

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

/** How one signed integer compares with another. */
export type Relation = "equal" | "unequal" | "less" | "greater";

interface Table {
  /** What the address of an instruction is a multiple of, in bytes. */
  readonly alignment: number;
  /** The size of a register, and in C of a long and a pointer, in bytes. */
  readonly wordSize: 4 | 8;
  /** What the stack pointer stays a multiple of, in bytes. */
  readonly stackAlignment: number;
  /** Where the kernel finds what is passed, where the number of the system call, and where it puts the result. */
  readonly kernelRegisters: readonly number[];
  readonly numberRegister: number;
  readonly resultRegister: number;
  loadInteger(code: Code, register: number, value: number): void;
  loadAddress(code: Code, register: number, label: string): void;
  loadStackPointer(code: Code, register: number): void;
  /** Adds up to MAX_STACK bytes to the stack pointer; where words are stored, also less than none. */
  addToStackPointer(code: Code, size: number): void;
  /** Enters the kernel. Whatever the kernel does, an error is a negative result. */
  trap(code: Code): void;
  jump(code: Code, target: string): void;
  /** Jumps if a register, as an int, compares so with a value: 0 to 127. */
  jumpIf(code: Code, register: number, relation: Relation, value: number, target: string): void;
  /** Jumps if an argument of the program, besides its name, is this text (arguments.ts). */
  jumpIfArgument?(code: Code, text: string, target: string): void;
  return(code: Code): void;
}

/** Words are stored on a stack that was made larger before. */
interface Stores {
  /** A register that no call finds anything in. */
  readonly scratch: number;
  /** One that is always 0, if there is one. */
  readonly zero?: number;
  /** Stores a register at this distance from the stack pointer, in bytes. */
  store(code: Code, register: number, offset: number): void;
}

/** Words are pushed, and the last one has to be the first. */
interface Pushes {
  /** Pushes words, behind zeros up to this many bytes. */
  push(code: Code, words: Words["words"], size: number): void;
}

/** How one architecture says what every routine needs. */
export type Encoder = Table & (Stores | Pushes);

/** How one architecture says what routines that call C functions need besides. */
export type FunctionEncoder = Encoder & {
  /** Where functions find what is passed. */
  readonly functionRegisters: readonly number[];
  /** Calls the function at this address, which may be a variadic one. */
  call(code: Code, address: number): void;
  /** Begins a function, and keeps the errno that the function at this address points to. */
  begin(code: Code, errnoLocation: number): void;
  /** Puts that errno back and returns. */
  end(code: Code): void;
};

/** What every architecture's addition can release, x86-64's with a signed byte, in bytes. */
const MAX_STACK = 112;

/** Loads an integer or an address. */
export function load(code: Code, encoder: Encoder, register: number, value: number | Address): void {
  if (typeof value !== "number") encoder.loadAddress(code, register, value.label);
  else if (Number.isSafeInteger(value)) encoder.loadInteger(code, register, value);
  else refuse(code, `${value} fits no register`);
}

/** Puts words on the stack, where they take so many bytes. */
function push(code: Code, encoder: Encoder, words: Words["words"], size: number): void {
  if ("push" in encoder) {
    encoder.push(code, words, size);
    return;
  }
  encoder.addToStackPointer(code, -size);
  let offset = 0;
  for (const value of words) {
    let register = encoder.zero;
    if (value !== 0 || register === undefined) {
      register = encoder.scratch;
      load(code, encoder, register, value);
    }
    encoder.store(code, register, offset);
    offset += encoder.wordSize;
  }
}

/** Loads what is passed, makes the call, and gives back what was put on the stack for it. */
function pass(
  code: Code,
  encoder: Encoder,
  registers: readonly number[],
  values: readonly Value[],
  makeCall: () => void,
): void {
  const { wordSize, stackAlignment } = encoder;
  let onStack = 0;
  let index = 0;
  for (const value of values) {
    const register = registers[index++];
    if (register === undefined) refuse(code, `${values.length} arguments, ${registers.length} registers`);
    if (typeof value === "number" || "label" in value) load(code, encoder, register, value);
    else {
      const size = (value.words.length * wordSize + stackAlignment - 1) & -stackAlignment;
      onStack += size;
      if (onStack > MAX_STACK) refuse(code, `a call takes more than ${MAX_STACK} bytes on the stack`);
      push(code, encoder, value.words, size);
      encoder.loadStackPointer(code, register);
    }
  }
  makeCall();
  if (onStack > 0) encoder.addToStackPointer(code, onStack);
}

/** Makes a system call. */
export function systemCall(code: Code, encoder: Encoder, number: number, values: readonly Value[]): void {
  pass(code, encoder, encoder.kernelRegisters, values, () => {
    encoder.loadInteger(code, encoder.numberRegister, number);
    encoder.trap(code);
  });
}

/** Calls a C function. */
export function call(code: Code, encoder: FunctionEncoder, address: number, values: readonly Value[]): void {
  pass(code, encoder, encoder.functionRegisters, values, () => encoder.call(code, address));
}

/** Jumps if the last result is so. */
export function jumpIf(code: Code, encoder: Encoder, condition: Condition, target: string): void {
  const { resultRegister } = encoder;
  if (condition === "positive") encoder.jumpIf(code, resultRegister, "greater", 0, target);
  else if (condition === "negative") encoder.jumpIf(code, resultRegister, "less", 0, target);
  else if (isSevenBits(condition)) encoder.jumpIf(code, resultRegister, "equal", condition, target);
  else refuse(code, `a result is compared with 0 to 127, not with ${condition}`);
}

/** All architectures compare with such a number, or with such a character, in one instruction without a second form. */
export const isSevenBits = (value: number): boolean => Number.isInteger(value) && value >= 0 && value < 128;
