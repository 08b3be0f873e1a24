/**
 * The s390x encoder: z/Architecture Principles of Operation (SA22-7832), chapter 7, for the instructions, of which z9
 * has all; a system call takes r2 to r7 and, as svc 0, its number in r1 (syscall(2)). Everything is big-endian. The
 * listing is as objdump prints it.
 */
import { addressOf, bytes, type Code, here, int32, label, local, type Text, upperHalf } from "./code.ts";
import { type Address, type Encoder, UnsupportedRoutine, type Value } from "./routine.ts";

/** Scratch: no argument. */
const R0 = 0;
/** The number of the system call. */
const R1 = 1;
/** The first argument, and the result. */
const R2 = 2;

/** An instruction with a register and 16 bits (format RI). */
function formatRI(code: Code, text: Text, register: number, opcode: number, bits: number): void {
  bytes(code, text, 0xa7, (register << 4) | opcode, (bits >> 8) & 0xff, bits & 0xff);
}

/** An instruction with a register and 32 bits (format RIL). */
function formatRIL(code: Code, text: Text, register: number, opcode: number, bits: number): void {
  bytes(code, text, 0xc0, (register << 4) | opcode, ...int32(bits).toReversed());
}

/** Loads a 64-bit integer: in one instruction if 16 or 32 bits say it, else its halves. */
function load64(code: Code, register: number, value: number): void {
  const named = (name: string, bits: number) => () => `${name} %r${register},${bits}`;
  if (value >= -(2 ** 15) && value < 2 ** 15) formatRI(code, named("lghi", value), register, 0x9, value);
  else if (value >= -(2 ** 31) && value < 2 ** 31)
    formatRIL(code, named("lgfi", value), register, 0x1, value);
  else {
    const [high, low] = [upperHalf(value), value >>> 0];
    formatRIL(code, named("llilf", low), register, 0xf, low); // it clears the upper half
    if (high !== 0) formatRIL(code, named("iihf", high), register, 0x8, high);
  }
}

function larl(code: Code, register: number, target: string): void {
  const address = addressOf(code, target);
  // Counted from itself, in halfwords.
  if (address % 2 !== 0)
    throw new UnsupportedRoutine(`${target} is at an odd address, which larl cannot load`);
  const text = () => `larl %r${register},${address.toString(16)}`;
  formatRIL(code, text, register, 0x0, (address - here(code)) / 2);
}

const aghi = (code: Code, register: number, value: number): void =>
  formatRI(code, () => `aghi %r${register},${value}`, register, 0xb, value);

/** Puts words on the stack, which stays aligned to 8 bytes (ELF ABI s390x 1.2.2). Returns how many bytes it took. */
function push(code: Code, words: readonly (number | Address)[]): number {
  const size = words.length * 8;
  if (size > 4096) throw new UnsupportedRoutine(`${words.length} words are more than a displacement reaches`);
  aghi(code, 15, -size);
  for (const [index, value] of words.entries()) {
    if (typeof value === "number") load64(code, R0, value);
    else larl(code, R0, value.label);
    const offset = index * 8;
    const text = () => `stg %r0,${offset}(%r15)`;
    bytes(code, text, 0xe3, R0 << 4, 0xf0 | (offset >> 8), offset & 0xff, 0x00, 0x24);
  }
  return size;
}

/** Loads what is passed into r2 to r7. Returns the bytes on the stack. */
function load(code: Code, values: readonly Value[]): readonly number[] {
  const onStack: number[] = [];
  for (const [index, value] of values.entries()) {
    const register = R2 + index;
    if (typeof value === "number") load64(code, register, value);
    else if ("label" in value) larl(code, register, value.label);
    else {
      onStack.push(push(code, value.words));
      bytes(code, () => `lgr %r${register},%r15`, 0xb9, 0x04, 0x00, (register << 4) | 15);
    }
  }
  return onStack;
}

/** A jump, by its name and the condition codes on which it is taken. It is counted from itself, in halfwords. */
function jump(code: Code, name: string, mask: number, target: string): void {
  const address = addressOf(code, target);
  const distance = (address - here(code)) / 2;
  if (distance < -0x8000 || distance > 0x7fff)
    throw new UnsupportedRoutine(`${target} is ${distance} halfwords away, and a jump bridges 64 KiB`);
  formatRI(code, () => `${name} ${address.toString(16)}`, mask, 0x4, distance);
}

const ALWAYS = 15;
const EQUAL = 8;
const LOW = 4;
const HIGH = 2;

export const s390x: Encoder = {
  alignment: 2,
  systemCall(code, number, values) {
    const onStack = load(code, values);
    load64(code, R1, number);
    bytes(code, "svc 0", 0x0a, 0x00);
    for (const size of onStack) aghi(code, 15, size);
  },
  jump(code, target) {
    jump(code, "j", ALWAYS, target);
  },
  jumpIf(code, condition, target) {
    const value = typeof condition === "number" ? condition : 0;
    formatRI(code, () => `chi %r2,${value}`, R2, 0xe, value);
    if (condition === "positive") jump(code, "jh", HIGH, target);
    else if (condition === "negative") jump(code, "jl", LOW, target);
    else jump(code, "je", EQUAL, target);
  },
  /** At its start a program finds argc at r15, and argv above it (the kernel's create_elf_tables). From its end. */
  jumpIfArgument(code, argument, target) {
    const none = local(code);
    const next = local(code);
    bytes(code, "lg %r8,0(%r15)", 0xe3, 0x80, 0xf0, 0x00, 0x00, 0x04);
    label(code, next);
    aghi(code, 8, -1);
    jump(code, "jnh", ALWAYS - HIGH, none);
    bytes(code, "sllg %r9,%r8,3", 0xeb, 0x98, 0x00, 0x03, 0x00, 0x0d);
    bytes(code, "lg %r9,8(%r9,%r15)", 0xe3, 0x99, 0xf0, 0x08, 0x00, 0x04);
    for (let index = 0; index <= argument.length; index++) {
      // Behind the last character comes the zero byte that ends a string.
      const character = argument.charCodeAt(index) || 0;
      const text = () => `cli ${index}(%r9),${character}`;
      bytes(code, text, 0x95, character, 0x90 | (index >> 8), index & 0xff);
      if (index < argument.length) jump(code, "jne", ALWAYS - EQUAL, next);
      else jump(code, "je", EQUAL, target);
    }
    jump(code, "j", ALWAYS, next);
    label(code, none);
  },
  return(code) {
    bytes(code, "br %r14", 0x07, 0xfe);
  },
};
