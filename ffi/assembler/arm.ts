/**
 * The encoder for 32-bit arm, of ARMv7-A's A32 instructions: Arm ARM (DDI 0406) A8.8; a system call takes r0 to r5 and
 * its number in r7 (syscall(2)). The listing is as objdump prints it.
 */
import { type Arguments, CASE } from "./arguments.ts";
import { type Code, distanceTo, refuse, shown, word } from "./code.ts";
import type { Encoder } from "./encoder.ts";

/** The program counter is read as so many bytes ahead of the instruction. */
const AHEAD = 8;

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

/** Loads a label's address: the program counter, and two bytes more or less. */
function adr(code: Code, register: number, target: string): void {
  const distance = distanceTo(code, target, 16, AHEAD);
  const size = Math.abs(distance);
  const [name, opcode] = distance < 0 ? ["sub", 0xe2400000] : ["add", 0xe2800000];
  const [low, high] = [size & 0xff, size >> 8];
  word(code, () => `${name} r${register}, pc, #${low}`, opcode | 0xf0000 | (register << 12) | low, target);
  // Rotated right by 24 is shifted left by 8 (A5.2.4). objdump shows what it is where another rotation says it too.
  const text = () => `${name} r${register}, r${register}, #${high % 4 === 0 ? `${high}, 24` : high << 8}`;
  word(code, text, opcode | (register << 16) | (register << 12) | 0xc00 | high);
}

/** A jump, by the name and number of its condition (A8.3). */
function jump(code: Code, name: string, condition: number, target: string): void {
  const distance = (distanceTo(code, target, 26, AHEAD) >> 2) & 0xffffff;
  word(code, () => `b${name} ${shown(code, target)}`, (condition << 28) | 0x0a000000 | distance, target);
}

const CONDITIONS = { equal: ["eq", 0], unequal: ["ne", 1], less: ["lt", 11], greater: ["gt", 12] } as const;
const ALWAYS = 14;

export const arm: Encoder = {
  alignment: 4,
  wordSize: 4,
  stackAlignment: 8, // AAPCS32 6.2.1.2
  kernelRegisters: [0, 1, 2, 3, 4, 5],
  numberRegister: 7,
  resultRegister: 0,
  scratch: 6, // a handler may overwrite every register, for the kernel puts back all of them
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
  trap: (code) => word(code, "svc 0x00000000", 0xef000000),
  jump: (code, target) => jump(code, "", ALWAYS, target),
  jumpIf(code, register, relation, value, target) {
    word(code, () => `cmp r${register}, #${value}`, 0xe3500000 | (register << 16) | value);
    const [name, condition] = CONDITIONS[relation];
    jump(code, name, condition, target);
  },
  return: (code) => word(code, "bx lr", 0xe12fff1e),
};

export const armArguments: Arguments = {
  countRegister: 8,
  characterRegister: 6,
  count: (code) => word(code, "ldr r8, [sp]", 0xe59d8000),
  take(code) {
    word(code, "ldr r9, [sp, r8, lsl #2]", 0xe79d9108);
    word(code, "sub r8, r8, #1", 0xe2488001);
  },
  load(code, index) {
    word(code, () => `ldrb r6, [r9${index > 0 ? `, #${index}` : ""}]`, 0xe5d96000 | index);
  },
  lower: (code) => word(code, () => `orr r6, r6, #${CASE}`, 0xe3866000 | CASE),
};
