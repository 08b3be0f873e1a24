/**
 * The arm64 encoder: Arm ARM (DDI 0487) C6.2 for the instructions, AAPCS64 6.1 for who keeps which register.
 */
import { type Code, type Encoder, int32 } from "./routine.ts";

/** IP0: no argument, and free at a call (AAPCS64 6.1.1). */
const X16 = 16;

/** Loads a 64-bit integer: one instruction for its first halfword that says something, one for each other. */
function mov(code: Code, register: number, value: number): void {
  // movn sets all bits that it does not name, which is what a small negative integer mostly consists of.
  const background = value < 0 ? 0xffff : 0;
  let first = true;
  for (let index = 0; index < 4; index++) {
    const word = index < 2 ? value >>> 0 : (value - (value >>> 0)) / 2 ** 32;
    const halfword = (word >>> (16 * (index % 2))) & 0xffff;
    const operands = (index << 21) | register;
    if (halfword === background && !(first && index === 3)) continue;
    if (!first)
      int32(code, 0xf2800000 | operands | (halfword << 5)); // movk xd, #halfword, lsl #(16 * index)
    else if (value < 0)
      int32(code, 0x92800000 | operands | ((halfword ^ 0xffff) << 5)); // movn xd, #~halfword, lsl #(16 * index)
    else int32(code, 0xd2800000 | operands | (halfword << 5)); // movz xd, #halfword, lsl #(16 * index)
    first = false;
  }
}

function call(code: Code, address: number, values: readonly number[]): void {
  // x0 to x7 take the integers, of a variadic function too (AAPCS64 6.8.2)
  let register = 0;
  for (const value of values) mov(code, register++, value);
  mov(code, X16, address);
  int32(code, 0xd63f0200); // blr x16
}

export const aarch64: Encoder = {
  call,
  prologue(code, errnoLocation) {
    int32(code, 0xa9be7bfd); // stp x29, x30, [sp, #-32]!
    int32(code, 0x910003fd); // mov x29, sp
    int32(code, 0xa90153f3); // stp x19, x20, [sp, #16]
    call(code, errnoLocation, []);
    int32(code, 0xaa0003f3); // mov x19, x0
    int32(code, 0xb9400274); // ldr w20, [x19]
  },
  jumpIfPositive(code, target) {
    int32(code, 0x7100001f); // cmp w0, #0
    int32(code, 0x5400000c | ((((target - code.offset) >> 2) & 0x7ffff) << 5)); // b.gt, counted from itself
  },
  jump(code, target) {
    int32(code, 0x14000000 | (((target - code.offset) >> 2) & 0x3ffffff)); // b, counted from itself
  },
  epilogue(code) {
    int32(code, 0xb9000274); // str w20, [x19]
    int32(code, 0xa94153f3); // ldp x19, x20, [sp, #16]
    int32(code, 0xa8c27bfd); // ldp x29, x30, [sp], #32
    int32(code, 0xd65f03c0); // ret
  },
};
