/**
 * The ppc64le encoder: Power ISA 3.0B, books I and III, for the instructions, of which POWER8 has all; a system call
 * takes r3 to r8 and its number in r0 (the kernel's Documentation/powerpc/syscall64-abi.rst). The listing is as
 * objdump prints it.
 */
import { type Arguments, CASE, isLetter } from "./arguments.ts";
import { addressOf, type Code, here, label, local, refuse, upperHalf, word } from "./code.ts";
import type { Encoder, Relation } from "./encoder.ts";

/** The stack pointer. */
const R1 = 1;
/** The first argument, and the result. */
const R3 = 3;
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
    refuse(code, `${target} is ${distance} bytes away, and addi bridges 32 KiB`);
  const text = () => `addi r${register},r${register},${distance}`;
  word(code, text, 0x38000000 | (register << 21) | (register << 16) | (distance & 0xffff), target);
}

function compare(code: Code, register: number, value: number): void {
  formD(code, () => `cmpwi r${register},${value}`, 11, 0, register, value);
}

/** On a bit of CR0: its name, whether the bit has to be set, and which it is (book I, 2.4). */
const CONDITIONS: Readonly<Record<Relation | "no overflow", readonly [string, isSet: boolean, bit: number]>> =
  {
    less: ["blt", true, 0],
    greater: ["bgt", true, 1],
    notGreater: ["ble", false, 1],
    equal: ["beq", true, 2],
    unequal: ["bne", false, 2],
    "no overflow": ["bns", false, 3],
  };

/** Jumps on what the instruction before has found out. */
function jumpOn(code: Code, relation: keyof typeof CONDITIONS, target: string): void {
  const [name, isSet, bit] = CONDITIONS[relation];
  const address = addressOf(code, target);
  const distance = address - here(code); // counted from itself
  if (distance !== signed16(distance))
    refuse(code, `${target} is ${distance} bytes away, and a branch bridges 32 KiB`);
  const operands = ((isSet ? 12 : 4) << 21) | (bit << 16) | (distance & 0xfffc);
  word(code, () => `${name} ${address.toString(16)}`, 0x40000000 | operands, target);
}

export const ppc64le: Encoder = {
  alignment: 4,
  wordSize: 8,
  stackAlignment: 16, // ELFv2 2.2.2.1
  maxStack: 0x7ff0,
  kernelRegisters: [3, 4, 5, 6, 7, 8],
  numberRegister: 0,
  scratch: 9,
  loadInteger: li,
  loadAddress: la,
  loadStackPointer(code, register) {
    word(code, () => `mr r${register},r1`, 0x7c200b78 | (register << 16));
  },
  addToStackPointer(code, size) {
    addi(code, R1, R1, size);
  },
  store(code, register, offset) {
    formD(code, () => `std r${register},${offset}(r1)`, 62, register, R1, offset);
  },
  trap(code) {
    word(code, "sc", 0x44000002);
    // An error is a positive number, of a child it could be; what tells them apart is CR0.SO.
    const done = local(code);
    jumpOn(code, "no overflow", done);
    word(code, "neg r3,r3", 0x7c6300d0);
    label(code, done);
  },
  jump(code, target) {
    const address = addressOf(code, target);
    const distance = (address - here(code)) & 0x3fffffc;
    word(code, () => `b ${address.toString(16)}`, 0x48000000 | distance, target);
  },
  jumpIf(code, relation, value, target) {
    compare(code, R3, value);
    jumpOn(code, relation, target);
  },
  return(code) {
    word(code, "blr", 0x4e800020);
  },
};

export const ppc64leArguments: Arguments = {
  count(code) {
    word(code, "ld r9,0(r1)", 0xe9210000);
  },
  previous(code, none) {
    word(code, "addic. r9,r9,-1", 0x3529ffff);
    jumpOn(code, "notGreater", none);
    word(code, "sldi r10,r9,3", 0x792a1f24);
    word(code, "add r10,r10,r1", 0x7d4a0a14);
    word(code, "ld r10,8(r10)", 0xe94a0008);
  },
  jumpIfCharacter(code, index, relation, character, target) {
    word(code, () => `lbz r11,${index}(r10)`, 0x896a0000 | index);
    if (isLetter(character)) word(code, () => `ori r11,r11,${CASE}`, 0x616b0000 | CASE);
    compare(code, R11, character);
    jumpOn(code, relation, target);
  },
};
