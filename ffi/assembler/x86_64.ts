/**
 * The x86-64 encoder: Intel SDM volume 2 for the bytes, System V psABI AMD64 3.2 for functions, A.2 for system calls.
 * The listing is in Intel's syntax, as `objdump -M intel` prints it.
 */
import { addressOf, bytes, type Code, here, hex, int32, label, local, upperHalf } from "./code.ts";
import { type Condition, type FunctionEncoder, UnsupportedRoutine, type Value } from "./routine.ts";

/** Names are for listings: a start has no time and no memory for arrays of them. */
const nameOf = (register: number) => "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11".split(" ")[register];
const nameOf32 = (register: number) =>
  "eax ecx edx ebx esp ebp esi edi r8d r9d r10d r11d".split(" ")[register];

const RAX = 0;
/** Scratch: no argument, and free at a call (psABI 3.2.1). */
const R11 = 11;
/** rdi, rsi, rdx, rcx, r8 and r9 (psABI 3.2.3). */
const FUNCTION_REGISTERS = [7, 6, 2, 1, 8, 9] as const;
/** The kernel takes r10 in the place of rcx, which the instruction itself overwrites (psABI A.2.1). */
const KERNEL_REGISTERS = [7, 6, 2, 10, 8, 9] as const;

/** What an addition of one signed byte can release. */
const MAX_WORDS = 15;

/** Loads a 64-bit integer, in the shortest of three forms. */
function mov(code: Code, register: number, value: number): void {
  const extended = register >> 3; // REX.B
  const low = register & 7;
  if (value >= 0 && value < 2 ** 32) {
    const opcode = extended ? [0x41, 0xb8 + low] : [0xb8 + low];
    // It clears the upper half.
    bytes(code, () => `mov ${nameOf32(register)},${hex(value)}`, ...opcode, ...int32(value));
  } else if (value < 0 && value >= -(2 ** 31)) {
    const text = () => `mov ${nameOf(register)},${hex(value)}`;
    bytes(code, text, 0x48 + extended, 0xc7, 0xc0 + low, ...int32(value));
  } else {
    const text = () => `movabs ${nameOf(register)},${hex(value)}`;
    bytes(code, text, 0x48 + extended, 0xb8 + low, ...int32(value), ...int32(upperHalf(value)));
  }
}

function lea(code: Code, register: number, target: string): void {
  const distance = addressOf(code, target) - here(code) - 7; // counted from its own end
  const text = () => `lea ${nameOf(register)},[rip+${hex(distance)}]`;
  bytes(code, text, 0x48 + (register >> 3) * 4, 0x8d, 0x05 + (register & 7) * 8, ...int32(distance));
}

/** Puts words on the stack, the last one first. It stays aligned to 16 bytes (3.2.2). Returns how many it took. */
function push(code: Code, words: readonly (number | { label: string })[]): number {
  const padding = words.length % 2;
  if (padding > 0) bytes(code, "push 0x0", 0x6a, 0);
  for (let index = words.length - 1; index >= 0; index--) {
    const value = words[index] ?? 0;
    if (value === 0) bytes(code, "push 0x0", 0x6a, 0);
    else {
      if (typeof value === "number") mov(code, RAX, value);
      else lea(code, RAX, value.label);
      bytes(code, "push rax", 0x50);
    }
  }
  return words.length + padding;
}

/** Loads what is passed. Returns how many words it has put on the stack. */
function load(code: Code, registers: readonly number[], values: readonly Value[]): number {
  let onStack = 0;
  let index = 0;
  for (const value of values) {
    const register = registers[index++] ?? R11;
    if (typeof value === "number") mov(code, register, value);
    else if ("label" in value) lea(code, register, value.label);
    else {
      onStack += push(code, value.words);
      const text = () => `mov ${nameOf(register)},rsp`;
      bytes(code, text, 0x48 + (register >> 3), 0x89, 0xe0 + (register & 7));
    }
  }
  return onStack;
}

function call(code: Code, address: number, values: readonly Value[]): void {
  const onStack = load(code, FUNCTION_REGISTERS, values);
  // A variadic function finds the number of vector registers in al (3.2.3).
  bytes(code, "xor eax,eax", 0x31, 0xc0);
  mov(code, R11, address);
  bytes(code, "call r11", 0x41, 0xff, 0xd3);
  release(code, onStack);
}

function release(code: Code, words: number): void {
  if (words > MAX_WORDS) throw new UnsupportedRoutine(`${words} words are more than one addition`);
  if (words > 0) bytes(code, () => `add rsp,${hex(words * 8)}`, 0x48, 0x83, 0xc4, words * 8);
}

/** A jump: in two bytes where the distance fits one, else with the long form's opcode and four bytes. */
function jump(code: Code, name: string, short: number, long: readonly number[], target: string): void {
  const address = addressOf(code, target);
  const text = () => `${name} ${address.toString(16)}`;
  // Both are counted from the instruction's own end.
  const distance = address - here(code) - 2;
  if (distance >= -128 && distance < 128) bytes(code, text, short, distance & 0xff);
  else bytes(code, text, ...long, ...int32(address - here(code) - long.length - 4));
}

/** A conditional jump, by its condition code (SDM volume 1, appendix B). */
const jumpOn = (code: Code, name: string, condition: number, target: string): void =>
  jump(code, name, 0x70 + condition, [0x0f, 0x80 + condition], target);

const EQUAL = 0x4;
const NOT_EQUAL = 0x5;
const SIGN = 0x8;
const LESS_OR_EQUAL = 0xe;
const GREATER = 0xf;

export const x86_64: FunctionEncoder = {
  alignment: 1,
  call,
  systemCall(code, number, values) {
    const onStack = load(code, KERNEL_REGISTERS, values);
    mov(code, RAX, number);
    bytes(code, "syscall", 0x0f, 0x05);
    release(code, onStack);
  },
  jump(code, target) {
    jump(code, "jmp", 0xeb, [0xe9], target);
  },
  jumpIf(code, condition: Condition, target) {
    if (typeof condition === "number") {
      bytes(code, () => `cmp eax,${hex(condition)}`, 0x83, 0xf8, condition);
      jumpOn(code, "je", EQUAL, target);
    } else {
      bytes(code, "test eax,eax", 0x85, 0xc0);
      if (condition === "positive") jumpOn(code, "jg", GREATER, target);
      else jumpOn(code, "js", SIGN, target);
    }
  },
  /** At its start a program finds argc at rsp, and argv above it (psABI 3.4.1). It is looked through from its end. */
  jumpIfArgument(code, argument, target) {
    const none = local(code);
    const next = local(code);
    bytes(code, "mov rcx,QWORD PTR [rsp]", 0x48, 0x8b, 0x0c, 0x24);
    label(code, next);
    bytes(code, "dec rcx", 0x48, 0xff, 0xc9);
    jumpOn(code, "jle", LESS_OR_EQUAL, none);
    bytes(code, "mov rdx,QWORD PTR [rsp+rcx*8+0x8]", 0x48, 0x8b, 0x54, 0xcc, 0x08); // rax has a result
    for (let index = 0; index <= argument.length; index++) {
      // Behind the last character comes the zero byte that ends a string.
      const character = argument.charCodeAt(index) || 0;
      const text = () => `cmp BYTE PTR [rdx${index > 0 ? `+${hex(index)}` : ""}],${hex(character)}`;
      if (index === 0) bytes(code, text, 0x80, 0x3a, character);
      else bytes(code, text, 0x80, 0x7a, index, character);
      if (index < argument.length) jumpOn(code, "jne", NOT_EQUAL, next);
      else jumpOn(code, "je", EQUAL, target);
    }
    jump(code, "jmp", 0xeb, [0xe9], next);
    label(code, none);
  },
  return(code) {
    bytes(code, "ret", 0xc3);
  },
  begin(code, errnoLocation) {
    bytes(code, "push rbx", 0x53); // this and r12 belong to the caller (psABI 3.2.1)
    bytes(code, "push r12", 0x41, 0x54);
    bytes(code, "sub rsp,0x8", 0x48, 0x83, 0xec, 0x08); // 16-byte alignment, with what is above it (psABI 3.2.2)
    call(code, errnoLocation, []);
    bytes(code, "mov rbx,rax", 0x48, 0x89, 0xc3);
    bytes(code, "mov r12d,DWORD PTR [rbx]", 0x44, 0x8b, 0x23);
  },
  end(code) {
    bytes(code, "mov DWORD PTR [rbx],r12d", 0x44, 0x89, 0x23);
    bytes(code, "add rsp,0x8", 0x48, 0x83, 0xc4, 0x08);
    bytes(code, "pop r12", 0x41, 0x5c);
    bytes(code, "pop rbx", 0x5b);
    bytes(code, "ret", 0xc3);
  },
};
