/**
 * The encoder for 32-bit arm, of ARMv7-A's A32 instructions: Arm ARM (DDI 0406) A8.8; a system call takes r0 to r5 and
 * its number in r7 (syscall(2)). The listing is as objdump prints it.
 */
import { type Arguments, CASE, isLetter } from "./arguments.ts";
import { addressOf, type Code, here, refuse, word } from "./code.ts";
import type { Encoder, Relation } from "./encoder.ts";

/** Loads a 32-bit integer: its lower half, which clears the upper, and that one where it says something. */
function mov(code: Code, register: number, value: number): void {
  if (value < -(2 ** 31) || value >= 2 ** 32) refuse(code, `${value} fits no register of 32 bits`);
  const half = (opcode: number, name: string, bits: number) => {
    const operands = ((bits & 0xf000) << 4) | (register << 12) | (bits & 0xfff);
    word(code, () => `${name} r${register}, #${bits}`, opcode | operands);
  };
  half(0xe3000000, "movw", value & 0xffff);
  if (value < 0 || value > 0xffff) half(0xe3400000, "movt", value >>> 16);
}

/** Loads a label's address: the program counter, which is read as 8 bytes ahead, and two bytes more or less. */
function adr(code: Code, register: number, target: string): void {
  const distance = addressOf(code, target) - here(code) - 8;
  const size = Math.abs(distance);
  if (size > 0xffff) refuse(code, `${target} is ${size} bytes away, and adr bridges 65535`);
  const [name, opcode] = distance < 0 ? ["sub", 0xe2400000] : ["add", 0xe2800000];
  const [low, high] = [size & 0xff, size >> 8];
  word(code, () => `${name} r${register}, pc, #${low}`, opcode | 0xf0000 | (register << 12) | low, target);
  // Rotated right by 24 is shifted left by 8 (A5.2.4). objdump shows what it is where another rotation says it too.
  const text = () => `${name} r${register}, r${register}, #${high % 4 === 0 ? `${high}, 24` : high << 8}`;
  word(code, text, opcode | (register << 16) | (register << 12) | 0xc00 | high);
}

function compare(code: Code, register: number, value: number): void {
  word(code, () => `cmp r${register}, #${value}`, 0xe3500000 | (register << 16) | value);
}

/** Names and numbers of conditions (A8.3). */
const CONDITIONS: Readonly<Record<Relation | "always", readonly [string, number]>> = {
  equal: ["eq", 0x0],
  unequal: ["ne", 0x1],
  less: ["lt", 0xb],
  greater: ["gt", 0xc],
  notGreater: ["le", 0xd],
  always: ["", 0xe],
};

/** Jumps on what the instruction before has compared. It is counted from the program counter, in words. */
function jumpOn(code: Code, relation: Relation | "always", target: string): void {
  const [name, condition] = CONDITIONS[relation];
  const address = addressOf(code, target);
  const distance = ((address - here(code) - 8) >> 2) & 0xffffff;
  word(code, () => `b${name} ${address.toString(16)}`, (condition << 28) | 0x0a000000 | distance, target);
}

export const arm: Encoder = {
  alignment: 4,
  wordSize: 4,
  stackAlignment: 8, // AAPCS32 6.2.1.2
  maxStack: 248,
  kernelRegisters: [0, 1, 2, 3, 4, 5],
  numberRegister: 7,
  // A handler may overwrite every register, for the kernel puts back all of them.
  scratch: 6,
  loadInteger: mov,
  loadAddress: adr,
  loadStackPointer(code, register) {
    word(code, () => `mov r${register}, sp`, 0xe1a0000d | (register << 12));
  },
  addToStackPointer(code, size) {
    if (size < 0) word(code, () => `sub sp, sp, #${-size}`, 0xe24dd000 | -size);
    else word(code, () => `add sp, sp, #${size}`, 0xe28dd000 | size);
  },
  store(code, register, offset) {
    const text = () => `str r${register}, [sp${offset > 0 ? `, #${offset}` : ""}]`;
    word(code, text, 0xe58d0000 | (register << 12) | offset);
  },
  trap(code) {
    word(code, "svc 0x00000000", 0xef000000);
  },
  jump(code, target) {
    jumpOn(code, "always", target);
  },
  jumpIf(code, relation, value, target) {
    compare(code, 0, value);
    jumpOn(code, relation, target);
  },
  return(code) {
    word(code, "bx lr", 0xe12fff1e);
  },
};

export const armArguments: Arguments = {
  count(code) {
    word(code, "ldr r8, [sp]", 0xe59d8000);
  },
  previous(code, none) {
    word(code, "subs r8, r8, #1", 0xe2588001);
    jumpOn(code, "notGreater", none);
    word(code, "add r9, sp, r8, lsl #2", 0xe08d9108);
    word(code, "ldr r9, [r9, #4]", 0xe5999004);
  },
  jumpIfCharacter(code, index, relation, character, target) {
    word(code, () => `ldrb r6, [r9${index > 0 ? `, #${index}` : ""}]`, 0xe5d96000 | index);
    if (isLetter(character)) word(code, () => `orr r6, r6, #${CASE}`, 0xe3866000 | CASE);
    compare(code, 6, character);
    jumpOn(code, relation, target);
  },
};
