/**
 * The arm64 encoder: Arm ARM (DDI 0487) C6.2 for the instructions, AAPCS64 6.1 for functions; a system call takes x0
 * to x5 and its number in x8 (syscall(2)). The listing is as objdump prints it.
 */
import { addressOf, type Code, here, hex, label, local, upperHalf, word } from "./code.ts";
import { type Address, type FunctionEncoder, UnsupportedRoutine, type Value } from "./routine.ts";

/** The number of the system call. */
const X8 = 8;
/** Scratch: no argument, and free at a call (AAPCS64 6.1.1). */
const X9 = 9;
const X10 = 10;
/** IP0: no argument, and free at a call. */
const X16 = 16;

/** Loads a 64-bit integer: one instruction for its first halfword that says something, one for each other. */
function mov(code: Code, register: number, value: number): void {
  // movn sets all bits that it does not name, which is what a small negative integer mostly consists of.
  const background = value < 0 ? 0xffff : 0;
  let first = true;
  for (let index = 0; index < 4; index++) {
    const half = index < 2 ? value >>> 0 : upperHalf(value);
    const halfword = (half >>> (16 * (index % 2))) & 0xffff;
    // 0 and -1 consist of nothing else, and still need one instruction.
    if (halfword === background && !(index === 0 && (value === 0 || value === -1))) continue;
    const operands = (index << 21) | register;
    if (!first) {
      const text = () => `movk x${register}, ${immediate(halfword)}, lsl #${16 * index}`;
      word(code, text, 0xf2800000 | operands | (halfword << 5));
    } else if (value < 0) {
      const text = () => `mov x${register}, ${immediate(-1 - (halfword ^ 0xffff) * 2 ** (16 * index))}`;
      word(code, text, 0x92800000 | operands | ((halfword ^ 0xffff) << 5)); // movn
    } else {
      const text = () => `mov x${register}, ${immediate(halfword * 2 ** (16 * index))}`;
      word(code, text, 0xd2800000 | operands | (halfword << 5)); // movz
    }
    first = false;
  }
}

const immediate = (value: number): string => `#${hex(value)}`;

function adr(code: Code, register: number, target: string): void {
  const address = addressOf(code, target);
  const distance = address - here(code); // counted from itself, in 21 bits: the lowest two stand apart
  const text = () => `adr x${register}, ${address.toString(16)}`;
  word(code, text, 0x10000000 | ((distance & 3) << 29) | (((distance >> 2) & 0x7ffff) << 5) | register);
}

/** Puts words on the stack, which stays aligned to 16 bytes (AAPCS64 6.4.5.1). Returns how many bytes it took. */
function push(code: Code, words: readonly (number | Address)[]): number {
  const size = (words.length * 8 + 15) & ~15;
  if (size > 0xfff) throw new UnsupportedRoutine(`${words.length} words are more than one subtraction`);
  word(code, () => `sub sp, sp, ${immediate(size)}`, 0xd10003ff | (size << 10));
  for (const [index, value] of words.entries()) {
    let register = 31; // xzr
    if (value !== 0) {
      register = X9;
      if (typeof value === "number") mov(code, X9, value);
      else adr(code, X9, value.label);
    }
    const text = () => `str ${register === 31 ? "xzr" : "x9"}, [sp${index > 0 ? `, #${index * 8}` : ""}]`;
    word(code, text, 0xf90003e0 | (index << 10) | register);
  }
  return size;
}

/** Loads what is passed into x0 to x7, of a variadic function too (AAPCS64 6.8.2). Returns the bytes on the stack. */
function load(code: Code, values: readonly Value[]): number {
  let onStack = 0;
  let register = 0;
  for (const value of values) {
    if (typeof value === "number") mov(code, register, value);
    else if ("label" in value) adr(code, register, value.label);
    else {
      onStack += push(code, value.words);
      const [target, text] = [register, () => `mov x${target}, sp`];
      word(code, text, 0x910003e0 | register);
    }
    register++;
  }
  return onStack;
}

function release(code: Code, size: number): void {
  if (size > 0) word(code, () => `add sp, sp, ${immediate(size)}`, 0x910003ff | (size << 10));
}

function call(code: Code, address: number, values: readonly Value[]): void {
  const onStack = load(code, values);
  mov(code, X16, address);
  word(code, "blr x16", 0xd63f0200);
  release(code, onStack);
}

function jump(code: Code, target: string): void {
  const address = addressOf(code, target);
  const text = () => `b ${address.toString(16)}`;
  word(code, text, 0x14000000 | (((address - here(code)) >> 2) & 0x3ffffff)); // counted from itself
}

/** A conditional jump, by the name and number of its condition (C1.2.4). */
function jumpOn(code: Code, name: string, condition: number, target: string): void {
  const address = addressOf(code, target);
  const text = () => `b.${name} ${address.toString(16)}`;
  word(code, text, 0x54000000 | ((((address - here(code)) >> 2) & 0x7ffff) << 5) | condition);
}

export const aarch64: FunctionEncoder = {
  alignment: 4,
  call,
  systemCall(code, number, values) {
    const onStack = load(code, values);
    mov(code, X8, number);
    word(code, "svc #0x0", 0xd4000001);
    release(code, onStack);
  },
  jump,
  jumpIf(code, condition, target) {
    const value = typeof condition === "number" ? condition : 0;
    word(code, () => `cmp w0, ${immediate(value)}`, 0x7100001f | (value << 10));
    if (condition === "positive") jumpOn(code, "gt", 0xc, target);
    else if (condition === "negative") jumpOn(code, "lt", 0xb, target);
    else jumpOn(code, "eq", 0x0, target);
  },
  /** At its start a program finds argc at sp, and argv above it (the kernel's create_elf_tables). From its end. */
  jumpIfArgument(code, argument, target) {
    const none = local(code);
    const next = local(code);
    word(code, "ldr x9, [sp]", 0xf94003e9);
    label(code, next);
    word(code, "subs x9, x9, #0x1", 0xf1000529);
    jumpOn(code, "le", 0xd, none);
    word(code, "add x10, sp, x9, lsl #3", 0x8b296fea);
    word(code, "ldr x10, [x10, #8]", 0xf940054a);
    for (let index = 0; index <= argument.length; index++) {
      // Behind the last character comes the zero byte that ends a string.
      const character = argument.charCodeAt(index) || 0;
      const load = () => `ldrb w8, [x10${index > 0 ? `, #${index}` : ""}]`;
      word(code, load, 0x39400000 | (index << 10) | (X10 << 5) | X8);
      word(code, () => `cmp w8, ${immediate(character)}`, 0x7100001f | (character << 10) | (X8 << 5));
      if (index < argument.length) jumpOn(code, "ne", 0x1, next);
      else jumpOn(code, "eq", 0x0, target);
    }
    jump(code, next);
    label(code, none);
  },
  return(code) {
    word(code, "ret", 0xd65f03c0);
  },
  begin(code, errnoLocation) {
    word(code, "stp x29, x30, [sp, #-32]!", 0xa9be7bfd);
    word(code, "mov x29, sp", 0x910003fd);
    word(code, "stp x19, x20, [sp, #16]", 0xa90153f3);
    call(code, errnoLocation, []);
    word(code, "mov x19, x0", 0xaa0003f3);
    word(code, "ldr w20, [x19]", 0xb9400274);
  },
  end(code) {
    word(code, "str w20, [x19]", 0xb9000274);
    word(code, "ldp x19, x20, [sp, #16]", 0xa94153f3);
    word(code, "ldp x29, x30, [sp], #32", 0xa8c27bfd);
    word(code, "ret", 0xd65f03c0);
  },
};
