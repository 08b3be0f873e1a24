/**
 * The encoder for 32-bit arm, of ARMv7-A's A32 instructions: Arm ARM (DDI 0406) A8.8; a system call takes r0 to r5 and
 * its number in r7 (syscall(2)). The listing is as objdump prints it.
 */
import { addressOf, type Code, here, label, local, word } from "./code.ts";
import { type Address, type Encoder, UnsupportedRoutine, type Value } from "./routine.ts";

/** Scratch: no argument. A handler may overwrite every register, for the kernel puts back all of them. */
const R6 = 6;
/** The number of the system call. */
const R7 = 7;

/** What the eight bits of an immediate can say; a rotation puts them elsewhere (A5.2.4). */
const IMMEDIATE = 0xff;

/** Loads a 32-bit integer: its lower half, which clears the upper, and that one where it says something. */
function mov(code: Code, register: number, value: number): void {
  if (value < -(2 ** 31) || value >= 2 ** 32)
    throw new UnsupportedRoutine(`${value} fits no register of 32 bits`);
  const half = (opcode: number, name: string, bits: number) =>
    word(
      code,
      () => `${name} r${register}, #${bits}`,
      opcode | ((bits & 0xf000) << 4) | (register << 12) | (bits & 0xfff),
    );
  half(0xe3000000, "movw", value & 0xffff);
  if (value < 0 || value > 0xffff) half(0xe3400000, "movt", value >>> 16);
}

/** Loads a label's address: the program counter, which is read as 8 bytes ahead, and two bytes more or less. */
function adr(code: Code, register: number, target: string): void {
  const distance = addressOf(code, target) - here(code) - 8;
  const size = Math.abs(distance);
  if (size > 0xffff) throw new UnsupportedRoutine(`${target} is ${size} bytes away, and adr bridges 65535`);
  const [name, opcode] = distance < 0 ? ["sub", 0xe2400000] : ["add", 0xe2800000];
  const [low, high] = [size & IMMEDIATE, size >> 8];
  word(code, () => `${name} r${register}, pc, #${low}`, opcode | 0xf0000 | (register << 12) | low);
  // Rotated right by 24 is shifted left by 8. objdump shows a rotated zero as what it is.
  const text = () => `${name} r${register}, r${register}, #${high === 0 ? "0, 24" : high << 8}`;
  word(code, text, opcode | (register << 16) | (register << 12) | 0xc00 | high);
}

/** Puts words on the stack, which stays aligned to 8 bytes (AAPCS32 6.2.1.2). Returns how many bytes it took. */
function push(code: Code, words: readonly (number | Address)[]): number {
  const size = (words.length * 4 + 7) & ~7;
  if (size > IMMEDIATE) throw new UnsupportedRoutine(`${words.length} words are more than one subtraction`);
  word(code, () => `sub sp, sp, #${size}`, 0xe24dd000 | size);
  for (const [index, value] of words.entries()) {
    if (typeof value === "number") mov(code, R6, value);
    else adr(code, R6, value.label);
    word(code, () => `str r6, [sp${index > 0 ? `, #${index * 4}` : ""}]`, 0xe58d6000 | (index * 4));
  }
  return size;
}

/** Loads what is passed into r0 to r5. Returns the bytes on the stack. */
function load(code: Code, values: readonly Value[]): readonly number[] {
  const onStack: number[] = [];
  for (const [register, value] of values.entries()) {
    if (typeof value === "number") mov(code, register, value);
    else if ("label" in value) adr(code, register, value.label);
    else {
      onStack.push(push(code, value.words));
      word(code, () => `mov r${register}, sp`, 0xe1a0000d | (register << 12));
    }
  }
  return onStack;
}

/** A jump, by the name and number of its condition (A8.3). It is counted from the program counter, in words. */
function jump(code: Code, name: string, condition: number, target: string): void {
  const address = addressOf(code, target);
  const distance = ((address - here(code) - 8) >> 2) & 0xffffff;
  word(code, () => `b${name} ${address.toString(16)}`, (condition << 28) | 0x0a000000 | distance);
}

const always = (code: Code, target: string): void => jump(code, "", 0xe, target);

export const arm: Encoder = {
  alignment: 4,
  systemCall(code, number, values) {
    const onStack = load(code, values);
    mov(code, R7, number);
    word(code, "svc 0x00000000", 0xef000000);
    for (const size of onStack) word(code, () => `add sp, sp, #${size}`, 0xe28dd000 | size);
  },
  jump: always,
  jumpIf(code, condition, target) {
    const value = typeof condition === "number" ? condition : 0;
    word(code, () => `cmp r0, #${value}`, 0xe3500000 | value);
    if (condition === "positive") jump(code, "gt", 0xc, target);
    else if (condition === "negative") jump(code, "lt", 0xb, target);
    else jump(code, "eq", 0x0, target);
  },
  /** At its start a program finds argc at sp, and argv above it (the kernel's create_elf_tables). From its end. */
  jumpIfArgument(code, argument, target) {
    const none = local(code);
    const next = local(code);
    word(code, "ldr r8, [sp]", 0xe59d8000);
    label(code, next);
    word(code, "subs r8, r8, #1", 0xe2588001);
    jump(code, "le", 0xd, none);
    word(code, "add r9, sp, r8, lsl #2", 0xe08d9108);
    word(code, "ldr r9, [r9, #4]", 0xe5999004);
    for (let index = 0; index <= argument.length; index++) {
      // Behind the last character comes the zero byte that ends a string.
      const character = argument.charCodeAt(index) || 0;
      word(code, () => `ldrb r6, [r9${index > 0 ? `, #${index}` : ""}]`, 0xe5d96000 | index);
      word(code, () => `cmp r6, #${character}`, 0xe3560000 | character);
      if (index < argument.length) jump(code, "ne", 0x1, next);
      else jump(code, "eq", 0x0, target);
    }
    always(code, next);
    label(code, none);
  },
  return(code) {
    word(code, "bx lr", 0xe12fff1e);
  },
};
