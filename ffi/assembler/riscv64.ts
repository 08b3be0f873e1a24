/**
 * The riscv64 encoder, of RV64I only: The RISC-V Instruction Set Manual, volume I, chapters 2 and 5; a system call
 * takes a0 to a5 and its number in a7 (syscall(2)). The listing is as `objdump -M no-aliases` prints it: with aliases,
 * binutils 2.40 calls addi add.
 */
import { type Arguments, CASE } from "./arguments.ts";
import { type Code, distanceTo, fits, hex, shown, word } from "./code.ts";
import type { Encoder } from "./encoder.ts";

const NAMES = "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7".split(" ");

const ZERO = 0;
const SP = 2;
/** Scratch: no arguments. */
const T0 = 5;
const T1 = 6;
const T2 = 7;

/** The lowest twelve bits, which every immediate has a sign in: what is left is a multiple of 4096. */
const low12 = (value: number): number => ((value & 0xfff) ^ 0x800) - 0x800;

const OPCODES = { addi: 0x13, addiw: 0x1b, slli: 0x1013, ori: 0x6013 } as const;

/** An instruction with two registers and twelve bits (type I). */
function typeI(code: Code, name: keyof typeof OPCODES, rd: number, rs: number, immediate: number): void {
  const operands = (immediate << 20) | (rs << 15) | (rd << 7);
  const shownImmediate = () => (name === "slli" ? hex(immediate) : immediate);
  word(code, () => `${name} ${NAMES[rd]},${NAMES[rs]},${shownImmediate()}`, OPCODES[name] | operands);
}

/** An instruction with twenty bits that are the upper ones of 32 (type U). */
function typeU(code: Code, name: string, opcode: number, rd: number, value: number, target?: string): void {
  const bits = (value / 4096) & 0xfffff;
  word(code, () => `${name} ${NAMES[rd]},${hex(bits)}`, opcode | (bits << 12) | (rd << 7), target);
}

/** Loads a 64-bit integer: the upper bits of up to 32, twelve more at a time. */
function li(code: Code, register: number, value: number): void {
  const low = low12(value);
  const rest = value - low;
  if (rest === 0) {
    typeI(code, "addi", register, ZERO, low);
  } else if (fits(value, 32)) {
    typeU(code, "lui", 0x37, register, rest);
    // Not addi: from 0x7ffff800 on, what lui has loaded is negative, and only their lower half's sum is not.
    if (low !== 0) typeI(code, "addiw", register, register, low);
  } else {
    li(code, register, rest / 4096);
    typeI(code, "slli", register, register, 12);
    if (low !== 0) typeI(code, "addi", register, register, low);
  }
}

function la(code: Code, register: number, target: string): void {
  const distance = distanceTo(code, target, 31); // counted from auipc itself
  const low = low12(distance);
  typeU(code, "auipc", 0x17, register, distance - low, target);
  typeI(code, "addi", register, register, low);
}

const BRANCHES = { equal: ["beq", 0], unequal: ["bne", 1], less: ["blt", 4], greater: ["blt", 4] } as const;

export const riscv64: Encoder = {
  alignment: 4,
  wordSize: 8,
  stackAlignment: 16, // psABI, Integer Calling Convention
  kernelRegisters: [10, 11, 12, 13, 14, 15],
  numberRegister: 17,
  resultRegister: 10,
  scratch: T0,
  zero: ZERO,
  loadInteger: li,
  loadAddress: la,
  loadStackPointer: (code, register) => typeI(code, "addi", register, SP, 0),
  addToStackPointer: (code, size) => typeI(code, "addi", SP, SP, size),
  store(code, register, offset) {
    const operands = ((offset >> 5) << 25) | (register << 20) | (SP << 15) | ((offset & 31) << 7);
    word(code, () => `sd ${NAMES[register]},${offset}(sp)`, 0x00003023 | operands);
  },
  trap: (code) => word(code, "ecall", 0x00000073),
  jump(code, target) {
    const distance = distanceTo(code, target, 21); // its bits stand in the order 20, 10:1, 11, 19:12
    const lower = ((distance & 0x7fe) << 20) | ((distance & 0x800) << 9);
    const bits = ((distance & 0x100000) << 11) | lower | (distance & 0xff000);
    word(code, () => `jal zero,${shown(code, target)}`, 0x6f | bits, target);
  },
  jumpIf(code, register, relation, value, target) {
    // There are no flags: the difference of 32 bits is compared with zero.
    typeI(code, "addiw", T0, register, -value);
    const [name, compare] = BRANCHES[relation];
    const [left, right] = relation === "greater" ? [ZERO, T0] : [T0, ZERO];
    const distance = distanceTo(code, target, 13); // its bits stand in the order 12, 10:5, 4:1, 11
    const upper = ((distance & 0x1000) << 19) | ((distance & 0x7e0) << 20);
    const bits = upper | ((distance & 0x1e) << 7) | ((distance & 0x800) >> 4);
    const text = () => `${name} ${NAMES[left]},${NAMES[right]},${shown(code, target)}`;
    word(code, text, 0x63 | bits | (compare << 12) | (left << 15) | (right << 20), target);
  },
  return: (code) => word(code, "jalr zero,0(ra)", 0x00008067),
};

export const riscv64Arguments: Arguments = {
  countRegister: T1,
  characterRegister: T0,
  count: (code) => word(code, "ld t1,0(sp)", 0x00013303),
  take(code) {
    typeI(code, "slli", T2, T1, 3);
    word(code, "add t2,t2,sp", 0x002383b3);
    word(code, "ld t2,0(t2)", 0x0003b383);
    typeI(code, "addi", T1, T1, -1);
  },
  load: (code, index) => word(code, () => `lbu t0,${index}(t2)`, 0x0003c283 | (index << 20)),
  lower: (code) => typeI(code, "ori", T0, T0, CASE),
};
