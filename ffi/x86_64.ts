/**
 * The x86-64 encoder: Intel SDM volume 2 for the bytes, System V psABI AMD64 3.2 for who keeps which register.
 */
import { bytes, type Code, type Encoder, int32, int64 } from "./routine.ts";

/** The numbers of rdi, rsi, rdx, rcx, r8 and r9 (psABI 3.2.3). */
const ARGUMENT_REGISTERS = [7, 6, 2, 1, 8, 9] as const;

/** Scratch: no argument, and free at a call (psABI 3.2.1). */
const R11 = 11;

/** Loads a 64-bit integer, in the shortest of three forms. */
function mov(code: Code, register: number, value: number): void {
  const extended = register >> 3; // REX.B
  const low = register & 7;
  if (value >= 0 && value < 2 ** 32) {
    if (extended) bytes(code, 0x41);
    bytes(code, 0xb8 + low); // mov r32, imm32, which clears the upper half
    int32(code, value);
  } else if (value < 0 && value >= -(2 ** 31)) {
    bytes(code, 0x48 + extended, 0xc7, 0xc0 + low); // mov r64, simm32
    int32(code, value);
  } else {
    bytes(code, 0x48 + extended, 0xb8 + low); // mov r64, imm64
    int64(code, value);
  }
}

function call(code: Code, address: number, values: readonly number[]): void {
  let index = 0;
  for (const value of values) mov(code, ARGUMENT_REGISTERS[index++] ?? R11, value);
  bytes(code, 0x31, 0xc0); // xor eax, eax: a variadic function finds the number of vector registers in al (3.2.3)
  mov(code, R11, address);
  bytes(code, 0x41, 0xff, 0xd3); // call r11
}

export const x86_64: Encoder = {
  call,
  prologue(code, errnoLocation) {
    bytes(code, 0x53); // push rbx: this and r12 belong to the caller (psABI 3.2.1)
    bytes(code, 0x41, 0x54); // push r12
    bytes(code, 0x48, 0x83, 0xec, 0x08); // sub rsp, 8: 16-byte alignment, with what is above it (psABI 3.2.2)
    call(code, errnoLocation, []);
    bytes(code, 0x48, 0x89, 0xc3); // mov rbx, rax
    bytes(code, 0x44, 0x8b, 0x23); // mov r12d, [rbx]
  },
  jumpIfPositive(code, target) {
    bytes(code, 0x85, 0xc0); // test eax, eax
    bytes(code, 0x0f, 0x8f); // jg rel32, counted from its own end
    int32(code, target - code.offset - 4);
  },
  jump(code, target) {
    bytes(code, 0xe9); // jmp rel32, counted from its own end
    int32(code, target - code.offset - 4);
  },
  epilogue(code) {
    bytes(code, 0x44, 0x89, 0x23); // mov [rbx], r12d
    bytes(code, 0x48, 0x83, 0xc4, 0x08); // add rsp, 8
    bytes(code, 0x41, 0x5c); // pop r12
    bytes(code, 0x5b); // pop rbx
    bytes(code, 0xc3); // ret
  },
};
