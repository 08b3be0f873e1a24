/**
 * The loong64 encoder: LoongArch Reference Manual, volume 1, chapter 2, for the instructions; a system call takes a0
 * to a5 and its number in a7 (syscall(2)). The listing is as `objdump -M no-aliases` prints it: with aliases, its
 * versions differ.
 */
import { type Arguments, CASE } from "./arguments.ts";
import { type Code, distanceTo, fits, hex, upperHalf, word } from "./code.ts";
import type { Encoder } from "./encoder.ts";

const NAMES = "zero ra tp sp a0 a1 a2 a3 a4 a5 a6 a7 t0 t1 t2".split(" ");

const ZERO = 0;
const SP = 3;
/** Scratch: no arguments. */
const T0 = 12;
const T1 = 13;
const T2 = 14;

/** Instructions with two registers and twelve bits, which have a sign (format 2RI12). */
const OPCODES = {
  "addi.w": 0x02800000,
  "addi.d": 0x02c00000,
  "lu52i.d": 0x03000000,
  "ld.d": 0x28c00000,
  "st.d": 0x29c00000,
  "ld.bu": 0x2a000000,
} as const;

function with12(code: Code, name: keyof typeof OPCODES, rd: number, rj: number, value: number): void {
  const operands = ((value & 0xfff) << 10) | (rj << 5) | rd;
  word(code, () => `${name} $${NAMES[rd]}, $${NAMES[rj]}, ${value}`, OPCODES[name] | operands);
}

function ori(code: Code, register: number, bits: number): void {
  const text = () => `ori $${NAMES[register]}, $${NAMES[register]}, ${hex(bits)}`;
  word(code, text, 0x03800000 | (bits << 10) | (register << 5) | register);
}

/** An instruction with a register and twenty bits, which have a sign (format 1RI20). */
function with20(code: Code, name: string, opcode: number, register: number, bits: number, target?: string) {
  const text = () => `${name} $${NAMES[register]}, ${(bits << 12) >> 12}`;
  word(code, text, opcode | ((bits & 0xfffff) << 5) | register, target);
}

/** Loads a 64-bit integer: 32 bits, of which the sign is extended, then twenty more, then twelve. */
function li(code: Code, register: number, value: number): void {
  const [high, low] = [upperHalf(value), value & 0xfff];
  if (fits(value, 12)) with12(code, "addi.w", register, ZERO, value);
  else {
    with20(code, "lu12i.w", 0x14000000, register, value >>> 12);
    if (low !== 0) ori(code, register, low);
    if (!fits(value, 32)) with20(code, "lu32i.d", 0x16000000, register, high);
    if (!fits(value, 52)) with12(code, "lu52i.d", register, register, high >> 20);
  }
}

/** Loads a label's address: the program counter and a multiple of 4096, and twelve bits, which have a sign. */
function la(code: Code, register: number, target: string): void {
  const distance = distanceTo(code, target, 31);
  const low = ((distance & 0xfff) ^ 0x800) - 0x800;
  with20(code, "pcaddu12i", 0x1c000000, register, (distance - low) / 4096, target);
  with12(code, "addi.d", register, register, low);
}

const BRANCHES = {
  equal: ["beq", 0x58000000],
  unequal: ["bne", 0x5c000000],
  less: ["blt", 0x60000000],
  greater: ["blt", 0x60000000],
} as const;

export const loong64: Encoder = {
  alignment: 4,
  wordSize: 8,
  stackAlignment: 16, // Procedure Call Standard, The stack
  kernelRegisters: [4, 5, 6, 7, 8, 9],
  numberRegister: 11,
  resultRegister: 4,
  scratch: T0,
  zero: ZERO,
  loadInteger: li,
  loadAddress: la,
  loadStackPointer: (code, register) => with12(code, "addi.d", register, SP, 0),
  addToStackPointer: (code, size) => with12(code, "addi.d", SP, SP, size),
  store: (code, register, offset) => with12(code, "st.d", register, SP, offset),
  trap: (code) => word(code, "syscall 0x0", 0x002b0000),
  jump(code, target) {
    const distance = distanceTo(code, target, 28); // its upper bits stand behind its lower ones
    const bits = ((distance << 8) & 0x3fffc00) | ((distance >> 18) & 0x3ff);
    word(code, () => `b ${distance}`, 0x50000000 | bits, target);
  },
  jumpIf(code, register, relation, value, target) {
    // There are no flags: the difference of 32 bits is compared with zero.
    with12(code, "addi.w", T0, register, -value);
    const [name, opcode] = BRANCHES[relation];
    const [left, right] = relation === "greater" ? [ZERO, T0] : [T0, ZERO];
    const distance = distanceTo(code, target, 18);
    const operands = ((distance << 8) & 0x3fffc00) | (left << 5) | right;
    word(code, () => `${name} $${NAMES[left]}, $${NAMES[right]}, ${distance}`, opcode | operands, target);
  },
  return: (code) => word(code, "jirl $zero, $ra, 0", 0x4c000020),
};

export const loong64Arguments: Arguments = {
  countRegister: T1,
  characterRegister: T0,
  count: (code) => with12(code, "ld.d", T1, SP, 0),
  take(code) {
    word(code, "alsl.d $t2, $t1, $sp, 0x3", 0x002d0dae);
    with12(code, "ld.d", T2, T2, 0);
    with12(code, "addi.d", T1, T1, -1);
  },
  load: (code, index) => with12(code, "ld.bu", T0, T2, index),
  lower: (code) => ori(code, T0, CASE),
};
