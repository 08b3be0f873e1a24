/**
 * The x86-64 encoder: Intel SDM volume 2 for the bytes, System V psABI AMD64 3.2 for functions, A.2 for system calls.
 * The listing is in Intel's syntax, as `objdump -M intel` prints it.
 */
import { type Arguments, CASE } from "./arguments.ts";
import {
  addressOf,
  bytes,
  type Code,
  fits,
  here,
  hex,
  int32,
  isShortJump,
  shown,
  upperHalf,
} from "./code.ts";
import { type FunctionEncoder, load } from "./encoder.ts";

/** Names are for listings: a start has no time and no memory for arrays of them. */
const nameOf = (register: number) => "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11".split(" ")[register];
const nameOf32 = (register: number) =>
  "eax ecx edx ebx esp ebp esi edi r8d r9d r10d r11d".split(" ")[register];

const RAX = 0;
const RCX = 1;
const RBX = 3;
/** Scratch: no argument, and free at a call (psABI 3.2.1). */
const R11 = 11;

/** Loads a 64-bit integer, in the shortest of three forms. */
function mov(code: Code, register: number, value: number): void {
  const extended = register >> 3; // REX.B
  const low = register & 7;
  if (value >= 0 && value < 2 ** 32) {
    const opcode = extended ? [0x41, 0xb8 + low] : [0xb8 + low];
    // It clears the upper half.
    bytes(code, () => `mov ${nameOf32(register)},${hex(value)}`, [...opcode, ...int32(value)]);
  } else if (fits(value, 32)) {
    const text = () => `mov ${nameOf(register)},${hex(value)}`;
    bytes(code, text, [0x48 + extended, 0xc7, 0xc0 + low, ...int32(value)]);
  } else {
    const text = () => `movabs ${nameOf(register)},${hex(value)}`;
    bytes(code, text, [0x48 + extended, 0xb8 + low, ...int32(value), ...int32(upperHalf(value))]);
  }
}

function lea(code: Code, register: number, target: string): void {
  const distance = addressOf(code, target) - here(code) - 7; // counted from its own end
  const text = () => `lea ${nameOf(register)},[rip+${hex(distance)}]`;
  const opcode = [0x48 + (register >> 3) * 4, 0x8d, 0x05 + (register & 7) * 8];
  bytes(code, text, [...opcode, ...int32(distance)], target);
}

function call(code: Code, address: number): void {
  // A variadic function finds the number of vector registers in al (psABI 3.2.3).
  bytes(code, "xor eax,eax", [0x31, 0xc0]);
  mov(code, R11, address);
  bytes(code, "call r11", [0x41, 0xff, 0xd3]);
}

/** A jump: in two bytes where the distance fits one, else with the long form's opcode and four bytes. */
function jump(code: Code, name: string, short: number, long: readonly number[], target: string): void {
  const text = () => `${name} ${shown(code, target)}`;
  const distance = addressOf(code, target) - here(code) - 2; // counted from its own end
  if (isShortJump(code, fits(distance, 8))) bytes(code, text, [short, distance & 0xff], target);
  else bytes(code, text, [...long, ...int32(distance - long.length - 2)], target);
}

/** Names and condition codes (SDM volume 1, appendix B). */
const CONDITIONS = { equal: ["je", 4], unequal: ["jne", 5], less: ["jl", 12], greater: ["jg", 15] } as const;

export const x86_64: FunctionEncoder = {
  alignment: 1,
  wordSize: 8,
  stackAlignment: 16, // psABI 3.2.2
  functionRegisters: [7, 6, 2, 1, 8, 9], // rdi, rsi, rdx, rcx, r8 and r9 (psABI 3.2.3)
  kernelRegisters: [7, 6, 2, 10, 8, 9], // r10 in the place of rcx, which the instruction overwrites (psABI A.2.1)
  numberRegister: RAX,
  resultRegister: RAX,
  loadInteger: mov,
  loadAddress: lea,
  loadStackPointer(code, register) {
    const operands = [0x48 + (register >> 3), 0x89, 0xe0 + (register & 7)];
    bytes(code, () => `mov ${nameOf(register)},rsp`, operands);
  },
  addToStackPointer: (code, size) => bytes(code, () => `add rsp,${hex(size)}`, [0x48, 0x83, 0xc4, size]),
  trap: (code) => bytes(code, "syscall", [0x0f, 0x05]),
  call,
  jump: (code, target) => jump(code, "jmp", 0xeb, [0xe9], target),
  jumpIf(code, register, relation, value, target) {
    const name = () => nameOf32(register);
    if (value === 0) bytes(code, () => `test ${name()},${name()}`, [0x85, 0xc0 + register * 9]);
    else bytes(code, () => `cmp ${name()},${hex(value)}`, [0x83, 0xf8 + register, value]);
    const [jcc, condition] = CONDITIONS[relation];
    jump(code, jcc, 0x70 + condition, [0x0f, 0x80 + condition], target);
  },
  return: (code) => bytes(code, "ret", [0xc3]),
  begin(code, errnoLocation) {
    bytes(code, "push rbx", [0x53]); // this and r12 belong to the caller (psABI 3.2.1)
    bytes(code, "push r12", [0x41, 0x54]);
    bytes(code, "sub rsp,0x8", [0x48, 0x83, 0xec, 0x08]); // 16-byte alignment, with what is above it (psABI 3.2.2)
    call(code, errnoLocation);
    bytes(code, "mov rbx,rax", [0x48, 0x89, 0xc3]);
    bytes(code, "mov r12d,DWORD PTR [rbx]", [0x44, 0x8b, 0x23]);
  },
  end(code) {
    bytes(code, "mov DWORD PTR [rbx],r12d", [0x44, 0x89, 0x23]);
    bytes(code, "add rsp,0x8", [0x48, 0x83, 0xc4, 0x08]);
    bytes(code, "pop r12", [0x41, 0x5c]);
    bytes(code, "pop rbx", [0x5b]);
    bytes(code, "ret", [0xc3]);
  },
  push(code, words, size) {
    for (let index = size / 8 - 1; index >= 0; index--) {
      const value = words[index] ?? 0;
      if (value === 0) bytes(code, "push 0x0", [0x6a, 0]);
      else {
        load(code, x86_64, RAX, value);
        bytes(code, "push rax", [0x50]);
      }
    }
  },
};

export const x86_64Arguments: Arguments = {
  countRegister: RCX,
  characterRegister: RBX,
  count: (code) => bytes(code, "mov ecx,DWORD PTR [rsp]", [0x8b, 0x0c, 0x24]),
  take(code) {
    bytes(code, "mov rdx,QWORD PTR [rsp+rcx*8]", [0x48, 0x8b, 0x14, 0xcc]);
    bytes(code, "dec ecx", [0xff, 0xc9]);
  },
  load(code, index) {
    const text = () => `movzx ebx,BYTE PTR [rdx${index > 0 ? `+${hex(index)}` : ""}]`;
    bytes(code, text, index > 0 ? [0x0f, 0xb6, 0x5a, index] : [0x0f, 0xb6, 0x1a]);
  },
  lower: (code) => bytes(code, () => `or ebx,${hex(CASE)}`, [0x83, 0xcb, CASE]),
};
