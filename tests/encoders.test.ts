/**
 * The bytes, held against a disassembler that knows nothing of this project: objdump of binutils.
 */
import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { aarch64 } from "../ffi/aarch64.ts";
import { addressOf, getpid, write } from "../ffi/libc.ts";
import {
  assemble,
  type Call,
  type Code,
  call,
  type Encoder,
  forever,
  handler,
  UnsupportedRoutine,
  whilePositive,
} from "../ffi/routine.ts";
import { sigaction } from "../ffi/sigaction.ts";
import { x86_64 } from "../ffi/x86_64.ts";
import { must } from "./helpers/process.ts";
import { dist } from "./helpers/programs.ts";
import { needs } from "./helpers/tools.ts";

const BASE = 0x7f00_0000_0000;
const ERRNO_LOCATION = 0x7f12_3456_789a;

/** Instructions as objdump prints them, with jump targets as offsets from the routine's start. */
function disassemble(encoder: Encoder, steps: readonly Call[]): string[] {
  const memory = new Uint8Array(4096);
  const into: Code = { view: new DataView(memory.buffer), offset: 0 };
  const entry = assemble(encoder, ERRNO_LOCATION, steps, into, BASE);
  const file = join(dist, "routine.bin");
  writeFileSync(file, memory.subarray(entry, into.offset));
  const [tool, ...options] =
    encoder === x86_64
      ? ["objdump", "-m", "i386:x86-64", "-M", "intel"]
      : ["aarch64-linux-gnu-objdump", "-m", "aarch64", "-M", "no-aliases"];
  const listing = must(tool ?? "", ...options, "-b", "binary", "-D", "--no-show-raw-insn", file);
  return listing
    .split("\n")
    .filter((line) => /^\s+[0-9a-f]+:\t/.test(line))
    .map((line) =>
      line
        .replace(/^\s+[0-9a-f]+:\t/, "")
        .replace(/\s*(\/\/|<).*$/, "")
        .replace(/\s+/g, " ")
        .trim(),
    );
}

/** A call whose function lies at an address that needs all its digits. */
const at = (address: number, ...values: number[]): Call => ({ address, arguments: values });

const x86 = needs({ objdump: "binutils" });
const arm = needs({ "aarch64-linux-gnu-objdump": "binutils-aarch64-linux-gnu" });

const PROLOGUE_X86 = [
  "push rbx",
  "push r12",
  "sub rsp,0x8",
  "xor eax,eax",
  "movabs r11,0x7f123456789a",
  "call r11",
  "mov rbx,rax",
  "mov r12d,DWORD PTR [rbx]",
];
const EPILOGUE_X86 = ["mov DWORD PTR [rbx],r12d", "add rsp,0x8", "pop r12", "pop rbx", "ret"];

test.skipIf(x86.skip)(x86.name("x86-64: six arguments, in each form of mov"), () => {
  expect(
    disassemble(x86_64, [at(0x7f00_dead_beef, 0, 2 ** 32 - 1, -1, -(2 ** 31), 2 ** 32, -(2 ** 31) - 1)]),
  ).toEqual([
    ...PROLOGUE_X86,
    "mov edi,0x0",
    "mov esi,0xffffffff",
    "mov rdx,0xffffffffffffffff",
    "mov rcx,0xffffffff80000000",
    "movabs r8,0x100000000",
    "movabs r9,0xffffffff7fffffff",
    "xor eax,eax",
    "movabs r11,0x7f00deadbeef",
    "call r11",
    ...EPILOGUE_X86,
  ]);
});

test.skipIf(x86.skip)(x86.name("x86-64: short forms of the extended registers, and both jumps"), () => {
  const steps = [whilePositive(at(0x1234, 1, 2, 3, 4, 5, -6)), forever(at(0x5678))];
  expect(disassemble(x86_64, steps)).toEqual([
    ...PROLOGUE_X86,
    "mov edi,0x1",
    "mov esi,0x2",
    "mov edx,0x3",
    "mov ecx,0x4",
    "mov r8d,0x5",
    "mov r9,0xfffffffffffffffa",
    "xor eax,eax",
    "mov r11d,0x1234",
    "call r11",
    "test eax,eax",
    "jg 0x1c",
    "xor eax,eax",
    "mov r11d,0x5678",
    "call r11",
    "jmp 0x50",
    ...EPILOGUE_X86,
  ]);
});

const PROLOGUE_ARM = [
  "stp x29, x30, [sp, #-32]!",
  "add x29, sp, #0x0",
  "stp x19, x20, [sp, #16]",
  "movz x16, #0x789a",
  "movk x16, #0x3456, lsl #16",
  "movk x16, #0x7f12, lsl #32",
  "blr x16",
  "orr x19, xzr, x0",
  "ldr w20, [x19]",
];
const EPILOGUE_ARM = ["str w20, [x19]", "ldp x19, x20, [sp, #16]", "ldp x29, x30, [sp], #32", "ret"];

test.skipIf(arm.skip)(arm.name("arm64: six arguments, in each form of mov"), () => {
  expect(
    disassemble(aarch64, [at(0x7f00_dead_0000, 0, 2 ** 32 - 1, -1, -(2 ** 31), 2 ** 32, -(2 ** 48) - 2)]),
  ).toEqual([
    ...PROLOGUE_ARM,
    "movz x0, #0x0, lsl #48",
    "movz x1, #0xffff",
    "movk x1, #0xffff, lsl #16",
    "movn x2, #0x0, lsl #48",
    "movn x3, #0xffff",
    "movk x3, #0x8000, lsl #16",
    "movz x4, #0x1, lsl #32",
    "movn x5, #0x1",
    "movk x5, #0xfffe, lsl #48",
    "movz x16, #0xdead, lsl #16",
    "movk x16, #0x7f00, lsl #32",
    "blr x16",
    ...EPILOGUE_ARM,
  ]);
});

test.skipIf(arm.skip)(arm.name("arm64: both jumps"), () => {
  const steps = [whilePositive(at(0x1234, 1, 2)), forever(at(0x5678))];
  expect(disassemble(aarch64, steps)).toEqual([
    ...PROLOGUE_ARM,
    "movz x0, #0x1",
    "movz x1, #0x2",
    "movz x16, #0x1234",
    "blr x16",
    "subs wzr, w0, #0x0",
    "b.gt 0x24",
    "movz x16, #0x5678",
    "blr x16",
    "b 0x3c",
    ...EPILOGUE_ARM,
  ]);
});

test("data lies before the code, each at a multiple of 16", () => {
  const code: Code = { view: new DataView(new ArrayBuffer(4096)), offset: 0 };
  const steps = [call(write, 1, new Uint8Array([9, 9, 9]), 3), call(write, 1, new Uint8Array([1, 2]), 2)];
  expect(assemble(x86_64, ERRNO_LOCATION, steps, code, BASE)).toBe(32);
});

test("what no routine can be made of is refused by name", () => {
  expect(() => call(write, 1, 2, 3, 4, 5, 6, 7)).toThrow(UnsupportedRoutine);
  for (const value of [0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, -(2 ** 53)])
    expect(() => call(write, value)).toThrow(UnsupportedRoutine);
  expect(() => call(() => 0)).toThrow(TypeError);
  expect(addressOf(getpid)).toBeGreaterThan(0);
  const forOne = handler([1], () => [call(getpid)]);
  expect(() => sigaction(2, { sa_handler: forOne }, null)).toThrow(UnsupportedRoutine);
});

test("routines that fill more than their memory are refused", () => {
  expect(() =>
    assemble(
      x86_64,
      ERRNO_LOCATION,
      Array(50).fill(at(1)),
      { view: new DataView(new ArrayBuffer(64)), offset: 0 },
      BASE,
    ),
  ).toThrow(RangeError);
});
