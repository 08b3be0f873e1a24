/**
 * The riscv64 encoder, of RV64I only: The RISC-V Instruction Set Manual, volume I, chapters 2 and 5; a system call
 * takes a0 to a5 and its number in a7 (syscall(2)). The listing is as `objdump -M no-aliases` prints it: with aliases,
 * binutils 2.40 calls addi add.
 */
import { type Arguments, CASE, isLetter } from "./arguments.ts";
import { addressOf, type Code, here, hex, refuse, word } from "./code.ts";
import type { Encoder, Relation } from "./encoder.ts";

const NAMES = "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7".split(" ");

const ZERO = 0;
const SP = 2;
/** Scratch: no arguments. */
const T0 = 5;
const T1 = 6;
const T2 = 7;
const A0 = 10;
/** The number of the system call. */
const A7 = 17;

const ADDI = 0x00000013;
const ORI = 0x00006013;
const ADDIW = 0x0000001b;
const LD = 0x00003003;
const LBU = 0x00004003;

/** The lowest twelve bits, which every immediate has a sign in: what is left is a multiple of 4096. */
const low12 = (value: number): number => ((value & 0xfff) ^ 0x800) - 0x800;

/** An instruction with two registers and twelve bits (type I). */
function typeI(code: Code, name: string, opcode: number, rd: number, rs: number, immediate: number): void {
  const operands = (immediate << 20) | (rs << 15) | (rd << 7);
  const text = () =>
    opcode === LD || opcode === LBU
      ? `${name} ${NAMES[rd]},${immediate}(${NAMES[rs]})`
      : `${name} ${NAMES[rd]},${NAMES[rs]},${immediate}`;
  word(code, text, opcode | operands);
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
    typeI(code, "addi", ADDI, register, ZERO, low);
  } else if (value >= -(2 ** 31) && value < 2 ** 31) {
    typeU(code, "lui", 0x37, register, rest);
    // Not addi: from 0x7ffff800 on, what lui has loaded is negative, and only their lower half's sum is not.
    if (low !== 0) typeI(code, "addiw", ADDIW, register, register, low);
  } else {
    li(code, register, rest / 4096);
    word(
      code,
      () => `slli ${NAMES[register]},${NAMES[register]},0xc`,
      0x00c01013 | (register << 15) | (register << 7),
    );
    if (low !== 0) typeI(code, "addi", ADDI, register, register, low);
  }
}

function la(code: Code, register: number, target: string): void {
  const distance = addressOf(code, target) - here(code); // counted from auipc itself
  const low = low12(distance);
  typeU(code, "auipc", 0x17, register, distance - low, target);
  typeI(code, "addi", ADDI, register, register, low);
}

/** What blt, bge and the others compare, and how. */
const BRANCHES: Readonly<Record<Relation, readonly [name: string, bits: number, zeroFirst: boolean]>> = {
  equal: ["beq", 0, false],
  unequal: ["bne", 1, false],
  less: ["blt", 4, false],
  greater: ["blt", 4, true],
  notGreater: ["bge", 5, true],
};

/** Jumps if a register compares so with 0. */
function branch(code: Code, register: number, relation: Relation, target: string): void {
  const [name, compare, zeroFirst] = BRANCHES[relation];
  const [left, right] = zeroFirst ? [ZERO, register] : [register, ZERO];
  const address = addressOf(code, target);
  const distance = address - here(code); // counted from itself; its bits stand in the order 12, 10:5, 4:1, 11
  if (distance < -4096 || distance > 4094)
    refuse(code, `${target} is ${distance} bytes away, and a branch bridges 4 KiB`);
  const bits =
    ((distance & 0x1000) << 19) |
    ((distance & 0x7e0) << 20) |
    ((distance & 0x1e) << 7) |
    ((distance & 0x800) >> 4);
  const text = () => `${name} ${NAMES[left]},${NAMES[right]},${address.toString(16)}`;
  word(code, text, 0x63 | bits | (compare << 12) | (left << 15) | (right << 20), target);
}

export const riscv64: Encoder = {
  alignment: 4,
  wordSize: 8,
  stackAlignment: 16, // psABI, Integer Calling Convention
  maxStack: 2032,
  kernelRegisters: [10, 11, 12, 13, 14, 15],
  numberRegister: A7,
  scratch: T0,
  zero: ZERO,
  loadInteger: li,
  loadAddress: la,
  loadStackPointer(code, register) {
    typeI(code, "addi", ADDI, register, SP, 0);
  },
  addToStackPointer(code, size) {
    typeI(code, "addi", ADDI, SP, SP, size);
  },
  store(code, register, offset) {
    const operands = ((offset >> 5) << 25) | (register << 20) | (SP << 15) | ((offset & 31) << 7);
    word(code, () => `sd ${NAMES[register]},${offset}(sp)`, 0x00003023 | operands);
  },
  trap(code) {
    word(code, "ecall", 0x00000073);
  },
  jump(code, target) {
    const address = addressOf(code, target);
    const distance = address - here(code); // counted from itself; its bits stand in the order 20, 10:1, 11, 19:12
    const bits =
      ((distance & 0x100000) << 11) |
      ((distance & 0x7fe) << 20) |
      ((distance & 0x800) << 9) |
      (distance & 0xff000);
    word(code, () => `jal zero,${address.toString(16)}`, 0x6f | bits, target);
  },
  jumpIf(code, relation, value, target) {
    // There are no flags: the difference of 32 bits is compared with zero.
    typeI(code, "addiw", ADDIW, T0, A0, -value);
    branch(code, T0, relation, target);
  },
  return(code) {
    word(code, "jalr zero,0(ra)", 0x00008067);
  },
};

export const riscv64Arguments: Arguments = {
  count(code) {
    typeI(code, "ld", LD, T0, SP, 0);
  },
  previous(code, none) {
    typeI(code, "addi", ADDI, T0, T0, -1);
    branch(code, T0, "notGreater", none);
    word(code, "slli t1,t0,0x3", 0x00329313);
    word(code, "add t1,t1,sp", 0x00230333);
    typeI(code, "ld", LD, T1, T1, 8);
  },
  jumpIfCharacter(code, index, relation, character, target) {
    typeI(code, "lbu", LBU, T2, T1, index);
    if (isLetter(character)) typeI(code, "ori", ORI, T2, T2, CASE);
    typeI(code, "addi", ADDI, T2, T2, -character);
    branch(code, T2, relation, target);
  },
};
