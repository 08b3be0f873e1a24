/**
 * The ppc64le encoder: Power ISA 3.0B, books I and III, for the instructions, of which POWER8 has all; a system call
 * takes r3 to r8 and its number in r0 (the kernel's Documentation/powerpc/syscall64-abi.rst). The listing is as
 * objdump prints it.
 */
import { addressOf, type Code, here, label, local, upperHalf, word } from "./code.ts";
import { type Address, type Encoder, UnsupportedRoutine, type Value } from "./routine.ts";

/** The number of the system call, and until it is loaded, the link register's value. */
const R0 = 0;
/** The stack pointer. */
const R1 = 1;
/** The first argument, and the result. */
const R3 = 3;
/** Scratch: no arguments. */
const R9 = 9;
const R11 = 11;

/** An instruction with two registers and 16 bits (form D). */
function formD(code: Code, text: () => string, opcode: number, rt: number, ra: number, bits: number): void {
  word(code, text, (opcode << 26) | (rt << 21) | (ra << 16) | (bits & 0xffff));
}

function addi(code: Code, rt: number, ra: number, immediate: number): void {
  formD(code, () => `addi r${rt},r${ra},${immediate}`, 14, rt, ra, immediate);
}

const signed16 = (value: number): number => (value << 16) >> 16;

/** Loads a 64-bit integer: the upper half as far as it says something, sixteen bits more at a time. */
function li(code: Code, register: number, value: number): void {
  const [high, low] = [(value >>> 16) & 0xffff, value & 0xffff];
  const or = (name: string, opcode: number, bits: number) => {
    if (bits !== 0)
      formD(code, () => `${name} r${register},r${register},${bits}`, opcode, register, register, bits);
  };
  if (value >= -(2 ** 15) && value < 2 ** 15) {
    formD(code, () => `li r${register},${value}`, 14, register, 0, value);
  } else if (value >= -(2 ** 31) && value < 2 ** 31) {
    formD(code, () => `lis r${register},${signed16(high)}`, 15, register, 0, high); // it extends the sign
    or("ori", 24, low);
  } else {
    li(code, register, upperHalf(value) | 0);
    const text = () => `sldi r${register},r${register},32`;
    word(code, text, 0x780007c6 | (register << 21) | (register << 16));
    or("oris", 25, high);
    or("ori", 24, low);
  }
}

/**
 * Loads a label's address. Only a call tells where it is, in the link register (addpcis is POWER9's). In a signal
 * handler that register leads back to the kernel's trampoline, so it is put back at once. The form of bcl is the one
 * that processors do not take for a call that will return (Power ISA, book I, 2.5).
 */
function la(code: Code, register: number, target: string): void {
  word(code, "mflr r0", 0x7c0802a6);
  const there = here(code) + 4;
  word(code, () => `bcl 20,4*cr7+so,${there.toString(16)}`, 0x429f0005);
  word(code, () => `mflr r${register}`, 0x7c0802a6 | (register << 21));
  word(code, "mtlr r0", 0x7c0803a6);
  const distance = addressOf(code, target) - there;
  if (distance !== signed16(distance))
    throw new UnsupportedRoutine(`${target} is ${distance} bytes away, and addi bridges 32 KiB`);
  addi(code, register, register, distance);
}

/** Puts words on the stack, which stays aligned to 16 bytes (ELFv2 2.2.2.1). Returns how many bytes it took. */
function push(code: Code, words: readonly (number | Address)[]): number {
  const size = (words.length * 8 + 15) & ~15;
  if (size > 0x7fff) throw new UnsupportedRoutine(`${words.length} words are more than one addition`);
  addi(code, R1, R1, -size);
  for (const [index, value] of words.entries()) {
    if (typeof value === "number") li(code, R9, value);
    else la(code, R9, value.label);
    formD(code, () => `std r9,${index * 8}(r1)`, 62, R9, R1, index * 8);
  }
  return size;
}

/** Loads what is passed into r3 to r8. Returns the bytes on the stack. */
function load(code: Code, values: readonly Value[]): readonly number[] {
  const onStack: number[] = [];
  for (const [index, value] of values.entries()) {
    const register = R3 + index;
    if (typeof value === "number") li(code, register, value);
    else if ("label" in value) la(code, register, value.label);
    else {
      onStack.push(push(code, value.words));
      word(code, () => `mr r${register},r1`, 0x7c200b78 | (register << 16));
    }
  }
  return onStack;
}

function jump(code: Code, target: string): void {
  const address = addressOf(code, target);
  word(code, () => `b ${address.toString(16)}`, 0x48000000 | ((address - here(code)) & 0x3fffffc));
}

/** A jump that depends on a bit of CR0, by its name, whether the bit has to be set, and which it is (book I, 2.4). */
function branch(code: Code, name: string, isSet: boolean, bit: number, target: string): void {
  const address = addressOf(code, target);
  const distance = address - here(code); // counted from itself
  if (distance !== signed16(distance))
    throw new UnsupportedRoutine(`${target} is ${distance} bytes away, and a branch bridges 32 KiB`);
  const operands = ((isSet ? 12 : 4) << 21) | (bit << 16) | (distance & 0xfffc);
  word(code, () => `${name} ${address.toString(16)}`, 0x40000000 | operands);
}

const LESS = 0;
const GREATER = 1;
const EQUAL = 2;
const SUMMARY_OVERFLOW = 3;

function compare(code: Code, register: number, value: number): void {
  formD(code, () => `cmpwi r${register},${value}`, 11, 0, register, value);
}

export const ppc64le: Encoder = {
  alignment: 4,
  systemCall(code, number, values) {
    const onStack = load(code, values);
    li(code, R0, number);
    word(code, "sc", 0x44000002);
    // An error is a positive number, of a child it could be; what tells them apart is CR0.SO.
    const done = local(code);
    branch(code, "bns", false, SUMMARY_OVERFLOW, done);
    word(code, "neg r3,r3", 0x7c6300d0);
    label(code, done);
    for (const size of onStack) addi(code, R1, R1, size);
  },
  jump,
  jumpIf(code, condition, target) {
    compare(code, R3, typeof condition === "number" ? condition : 0);
    if (condition === "positive") branch(code, "bgt", true, GREATER, target);
    else if (condition === "negative") branch(code, "blt", true, LESS, target);
    else branch(code, "beq", true, EQUAL, target);
  },
  /** At its start a program finds argc at r1, and argv above it (the kernel's create_elf_tables). From its end. */
  jumpIfArgument(code, argument, target) {
    const none = local(code);
    const next = local(code);
    word(code, "ld r9,0(r1)", 0xe9210000);
    label(code, next);
    word(code, "addic. r9,r9,-1", 0x3529ffff);
    branch(code, "ble", false, GREATER, none);
    word(code, "sldi r10,r9,3", 0x792a1f24);
    word(code, "add r10,r10,r1", 0x7d4a0a14);
    word(code, "ld r10,8(r10)", 0xe94a0008);
    for (let index = 0; index <= argument.length; index++) {
      // Behind the last character comes the zero byte that ends a string.
      const character = argument.charCodeAt(index) || 0;
      word(code, () => `lbz r11,${index}(r10)`, 0x896a0000 | index);
      compare(code, R11, character);
      if (index < argument.length) branch(code, "bne", false, EQUAL, next);
      else branch(code, "beq", true, EQUAL, target);
    }
    jump(code, next);
    label(code, none);
  },
  return(code) {
    word(code, "blr", 0x4e800020);
  },
};
