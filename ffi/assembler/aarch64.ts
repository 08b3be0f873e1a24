/**
 * The arm64 encoder: Arm ARM (DDI 0487) C6.2 for the instructions, AAPCS64 6.1 for functions; a system call takes x0
 * to x5 and its number in x8 (syscall(2)). The listing is as objdump prints it.
 */
import { type Arguments, CASE } from "./arguments.ts";
import { type Code, distanceTo, hex, shown, upperHalf, word } from "./code.ts";
import type { FunctionEncoder } from "./encoder.ts";

const REGISTERS = [0, 1, 2, 3, 4, 5];
/** IP0: no argument, and free at a call (AAPCS64 6.1.1). */
const X16 = 16;
/** As a register that is stored. */
const XZR = 31;

const immediate = (value: number): string => `#${hex(value)}`;

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

function adr(code: Code, register: number, target: string): void {
  const distance = distanceTo(code, target, 21); // the lowest two bits stand apart
  const bits = ((distance & 3) << 29) | (((distance >> 2) & 0x7ffff) << 5);
  word(code, () => `adr x${register}, ${shown(code, target)}`, 0x10000000 | bits | register, target);
}

function call(code: Code, address: number): void {
  mov(code, X16, address);
  word(code, "blr x16", 0xd63f0200);
}

/** Names and numbers of conditions (C1.2.4). */
const CONDITIONS = { equal: ["eq", 0], unequal: ["ne", 1], less: ["lt", 11], greater: ["gt", 12] } as const;

export const aarch64: FunctionEncoder = {
  alignment: 4,
  wordSize: 8,
  stackAlignment: 16, // AAPCS64 6.4.5.1
  functionRegisters: REGISTERS, // of a variadic function too (AAPCS64 6.8.2)
  kernelRegisters: REGISTERS,
  numberRegister: 8,
  resultRegister: 0,
  loadInteger: mov,
  loadAddress: adr,
  loadStackPointer: (code, register) => word(code, () => `mov x${register}, sp`, 0x910003e0 | register),
  addToStackPointer(code, size) {
    if (size < 0) word(code, () => `sub sp, sp, ${immediate(-size)}`, 0xd10003ff | (-size << 10));
    else word(code, () => `add sp, sp, ${immediate(size)}`, 0x910003ff | (size << 10));
  },
  trap: (code) => word(code, "svc #0x0", 0xd4000001),
  call,
  jump(code, target) {
    const distance = (distanceTo(code, target, 28) >> 2) & 0x3ffffff;
    word(code, () => `b ${shown(code, target)}`, 0x14000000 | distance, target);
  },
  jumpIf(code, register, relation, value, target) {
    const operands = (value << 10) | (register << 5);
    word(code, () => `cmp w${register}, ${immediate(value)}`, 0x7100001f | operands);
    const [name, condition] = CONDITIONS[relation];
    const distance = (distanceTo(code, target, 21) >> 2) & 0x7ffff;
    const text = () => `b.${name} ${shown(code, target)}`;
    word(code, text, 0x54000000 | (distance << 5) | condition, target);
  },
  return: (code) => word(code, "ret", 0xd65f03c0),
  begin(code, errnoLocation) {
    word(code, "stp x29, x30, [sp, #-32]!", 0xa9be7bfd);
    word(code, "mov x29, sp", 0x910003fd);
    word(code, "stp x19, x20, [sp, #16]", 0xa90153f3);
    call(code, errnoLocation);
    word(code, "mov x19, x0", 0xaa0003f3);
    word(code, "ldr w20, [x19]", 0xb9400274);
  },
  end(code) {
    word(code, "str w20, [x19]", 0xb9000274);
    word(code, "ldp x19, x20, [sp, #16]", 0xa94153f3);
    word(code, "ldp x29, x30, [sp], #32", 0xa8c27bfd);
    word(code, "ret", 0xd65f03c0);
  },
  scratch: 9,
  zero: XZR,
  store(code, register, offset) {
    const name = () => (register === XZR ? "xzr" : `x${register}`);
    const text = () => `str ${name()}, [sp${offset > 0 ? `, #${offset}` : ""}]`;
    word(code, text, 0xf90003e0 | (offset << 7) | register); // counted in words
  },
};

export const aarch64Arguments: Arguments = {
  countRegister: 9,
  characterRegister: 8,
  count: (code) => word(code, "ldr x9, [sp]", 0xf94003e9),
  take(code) {
    word(code, "ldr x10, [sp, x9, lsl #3]", 0xf8697bea);
    word(code, "sub x9, x9, #0x1", 0xd1000529);
  },
  load(code, index) {
    word(code, () => `ldrb w8, [x10${index > 0 ? `, #${index}` : ""}]`, 0x39400148 | (index << 10));
  },
  lower: (code) => word(code, () => `orr w8, w8, ${immediate(CASE)}`, 0x321b0108),
};
