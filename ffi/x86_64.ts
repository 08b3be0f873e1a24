/**
 * The x86-64 encoder: Intel SDM volume 2 for the bytes, System V psABI AMD64 3.2 for who keeps which register.
 */
import type { Code, Encoder } from "./routine.ts";

/** The numbers of rdi, rsi, rdx, rcx, r8 and r9 (psABI 3.2.3). */
const ARGUMENT_REGISTERS = [7, 6, 2, 1, 8, 9] as const;

/** Scratch: no argument, and free at a call (psABI 3.2.1). */
const R11 = 11;

/** Loads a 64-bit integer, in the shortest of three forms. */
function mov(code: Code, register: number, value: number): void {
  const extended = register >> 3; // REX.B
  const low = register & 7;
  if (value >= 0 && value < 2 ** 32) {
    if (extended) code.bytes(0x41);
    code.bytes(0xb8 + low); // mov r32, imm32, which clears the upper half
    code.int32(value);
  } else if (value < 0 && value >= -(2 ** 31)) {
    code.bytes(0x48 + extended, 0xc7, 0xc0 + low); // mov r64, simm32
    code.int32(value);
  } else {
    code.bytes(0x48 + extended, 0xb8 + low); // mov r64, imm64
    code.int64(value);
  }
}

function call(code: Code, address: number, values: readonly number[]): void {
  for (const [index, register] of ARGUMENT_REGISTERS.entries()) {
    const value = values[index];
    if (value === undefined) break;
    mov(code, register, value);
  }
  code.bytes(0x31, 0xc0); // xor eax, eax: a variadic function finds the number of vector registers in al (3.2.3)
  mov(code, R11, address);
  code.bytes(0x41, 0xff, 0xd3); // call r11
}

export const x86_64: Encoder = {
  call,
  prologue(code, errnoLocation) {
    code.bytes(0x53); // push rbx: this and r12 belong to the caller (psABI 3.2.1)
    code.bytes(0x41, 0x54); // push r12
    code.bytes(0x48, 0x83, 0xec, 0x08); // sub rsp, 8: 16-byte alignment, with what is above it (psABI 3.2.2)
    call(code, errnoLocation, []);
    code.bytes(0x48, 0x89, 0xc3); // mov rbx, rax
    code.bytes(0x44, 0x8b, 0x23); // mov r12d, [rbx]
  },
  jumpIfPositive(code, target) {
    code.bytes(0x85, 0xc0); // test eax, eax
    code.bytes(0x0f, 0x8f); // jg rel32, counted from its own end
    code.int32(target - code.offset - 4);
  },
  jump(code, target) {
    code.bytes(0xe9); // jmp rel32, counted from its own end
    code.int32(target - code.offset - 4);
  },
  epilogue(code) {
    code.bytes(0x44, 0x89, 0x23); // mov [rbx], r12d
    code.bytes(0x48, 0x83, 0xc4, 0x08); // add rsp, 8
    code.bytes(0x41, 0x5c); // pop r12
    code.bytes(0x5b); // pop rbx
    code.bytes(0xc3); // ret
  },
};
