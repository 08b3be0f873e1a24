/**
 * The ppc64le encoder: Power ISA 3.0B, books I and III, for the instructions, of which POWER8 has all; a system call
 * takes r3 to r8 and its number in r0 (the kernel's Documentation/powerpc/syscall64-abi.rst). The listing is as
 * objdump prints it.
 */
import { type Arguments, CASE } from "./arguments.ts";
import { type Code, distanceTo, fits, here, shown, upperHalf, word } from "./code.ts";
import type { Encoder } from "./encoder.ts";

/** The stack pointer. */
const R1 = 1;

/** An instruction with two registers and 16 bits (form D). */
function formD(code: Code, text: () => string, opcode: number, rt: number, ra: number, bits: number): void {
  word(code, text, (opcode << 26) | (rt << 21) | (ra << 16) | (bits & 0xffff));
}

/** Loads a 64-bit integer: the upper half as far as it says something, sixteen bits more at a time. */
function li(code: Code, register: number, value: number): void {
  const [high, low] = [(value >>> 16) & 0xffff, value & 0xffff];
  const or = (name: string, opcode: number, bits: number) => {
    if (bits !== 0)
      formD(code, () => `${name} r${register},r${register},${bits}`, opcode, register, register, bits);
  };
  if (fits(value, 16)) {
    formD(code, () => `li r${register},${value}`, 14, register, 0, value);
  } else if (fits(value, 32)) {
    formD(code, () => `lis r${register},${value >> 16}`, 15, register, 0, high); // it extends the sign
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
  const there = (here(code) + 4).toString(16);
  word(code, () => `bcl 20,4*cr7+so,${there}`, 0x429f0005);
  const distance = distanceTo(code, target, 16);
  word(code, () => `mflr r${register}`, 0x7c0802a6 | (register << 21));
  word(code, "mtlr r0", 0x7c0803a6);
  const operands = (register << 21) | (register << 16) | (distance & 0xffff);
  word(code, () => `addi r${register},r${register},${distance}`, 0x38000000 | operands, target);
}

/** Names, and whether which bit of CR0 has to be set (book I, 2.4). */
const CONDITIONS = {
  equal: ["beq", 12, 2],
  unequal: ["bne", 4, 2],
  less: ["blt", 12, 0],
  greater: ["bgt", 12, 1],
} as const;

export const ppc64le: Encoder = {
  alignment: 4,
  wordSize: 8,
  stackAlignment: 16, // ELFv2 2.2.2.1
  kernelRegisters: [3, 4, 5, 6, 7, 8],
  numberRegister: 0,
  resultRegister: 3,
  scratch: 9,
  loadInteger: li,
  loadAddress: la,
  loadStackPointer: (code, register) => word(code, () => `mr r${register},r1`, 0x7c200b78 | (register << 16)),
  addToStackPointer: (code, size) => formD(code, () => `addi r1,r1,${size}`, 14, R1, R1, size),
  store: (code, register, offset) =>
    formD(code, () => `std r${register},${offset}(r1)`, 62, register, R1, offset),
  trap(code) {
    word(code, "sc", 0x44000002);
    // An error is a positive number, of a child it could be; what tells them apart is CR0.SO.
    const done = (here(code) + 8).toString(16);
    word(code, () => `bns ${done}`, 0x40830008);
    word(code, "neg r3,r3", 0x7c6300d0);
  },
  jump(code, target) {
    const distance = distanceTo(code, target, 26) & 0x3fffffc;
    word(code, () => `b ${shown(code, target)}`, 0x48000000 | distance, target);
  },
  jumpIf(code, register, relation, value, target) {
    formD(code, () => `cmpwi r${register},${value}`, 11, 0, register, value);
    const [name, isSet, bit] = CONDITIONS[relation];
    const operands = (isSet << 21) | (bit << 16) | (distanceTo(code, target, 16) & 0xfffc);
    word(code, () => `${name} ${shown(code, target)}`, 0x40000000 | operands, target);
  },
  return: (code) => word(code, "blr", 0x4e800020),
};

export const ppc64leArguments: Arguments = {
  countRegister: 9,
  characterRegister: 11,
  count: (code) => word(code, "ld r9,0(r1)", 0xe9210000),
  take(code) {
    word(code, "sldi r10,r9,3", 0x792a1f24);
    word(code, "ldx r10,r10,r1", 0x7d4a082a);
    word(code, "addi r9,r9,-1", 0x3929ffff);
  },
  load: (code, index) => word(code, () => `lbz r11,${index}(r10)`, 0x896a0000 | index),
  lower: (code) => word(code, () => `ori r11,r11,${CASE}`, 0x616b0000 | CASE),
};
