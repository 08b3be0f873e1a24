/**
 * The s390x encoder: z/Architecture Principles of Operation (SA22-7832), chapter 7, for the instructions, of which z9
 * has all; a system call takes r2 to r7 and, as svc 0, its number in r1 (syscall(2)). Everything is big-endian. The
 * listing is as objdump prints it.
 */
import { type Arguments, CASE } from "./arguments.ts";
import { bytes, type Code, distanceTo, fits, int32, refuse, shown, type Text, upperHalf } from "./code.ts";
import type { Encoder } from "./encoder.ts";

/** The stack pointer. */
const R15 = 15;

/** An instruction with a register and 16 bits (format RI). */
function formatRI(code: Code, text: Text, register: number, opcode: number, bits: number, target?: string) {
  bytes(code, text, [0xa7, (register << 4) | opcode, (bits >> 8) & 0xff, bits & 0xff], target);
}

/** An instruction with a register and 32 bits (format RIL). */
function formatRIL(code: Code, text: Text, register: number, opcode: number, bits: number, target?: string) {
  bytes(code, text, [0xc0, (register << 4) | opcode, ...int32(bits).toReversed()], target);
}

/** Loads a 64-bit integer: in one instruction if 16 or 32 bits say it, else its halves. */
function load64(code: Code, register: number, value: number): void {
  const named = (name: string, bits: number) => () => `${name} %r${register},${bits}`;
  if (fits(value, 16)) formatRI(code, named("lghi", value), register, 0x9, value);
  else if (fits(value, 32)) formatRIL(code, named("lgfi", value), register, 0x1, value);
  else {
    const [high, low] = [upperHalf(value), value >>> 0];
    formatRIL(code, named("llilf", low), register, 0xf, low); // it clears the upper half
    if (high !== 0) formatRIL(code, named("iihf", high), register, 0x8, high);
  }
}

function larl(code: Code, register: number, target: string): void {
  const distance = distanceTo(code, target, 33); // counted in halfwords
  if (distance % 2 !== 0) refuse(code, `${target} is at an odd address, which larl cannot load`);
  formatRIL(code, () => `larl %r${register},${shown(code, target)}`, register, 0x0, distance / 2, target);
}

function aghi(code: Code, register: number, value: number): void {
  formatRI(code, () => `aghi %r${register},${value}`, register, 0xb, value);
}

/** A jump, by its name and the condition codes on which it is taken. It is counted in halfwords. */
function jump(code: Code, name: string, mask: number, target: string): void {
  const distance = distanceTo(code, target, 17) / 2;
  formatRI(code, () => `${name} ${shown(code, target)}`, mask, 0x4, distance, target);
}

const CONDITIONS = { equal: ["je", 8], unequal: ["jne", 7], less: ["jl", 4], greater: ["jh", 2] } as const;
const ALWAYS = 15;

export const s390x: Encoder = {
  alignment: 2,
  wordSize: 8,
  stackAlignment: 8, // ELF ABI s390x 1.2.2
  kernelRegisters: [2, 3, 4, 5, 6, 7],
  numberRegister: 1,
  resultRegister: 2,
  scratch: 0,
  loadInteger: load64,
  loadAddress: larl,
  loadStackPointer(code, register) {
    bytes(code, () => `lgr %r${register},%r15`, [0xb9, 0x04, 0x00, (register << 4) | R15]);
  },
  addToStackPointer: (code, size) => aghi(code, R15, size),
  store(code, register, offset) {
    const operands = [register << 4, R15 << 4, offset, 0x00];
    bytes(code, () => `stg %r${register},${offset}(%r15)`, [0xe3, ...operands, 0x24]);
  },
  trap: (code) => bytes(code, "svc 0", [0x0a, 0x00]),
  jump: (code, target) => jump(code, "j", ALWAYS, target),
  jumpIf(code, register, relation, value, target) {
    formatRI(code, () => `chi %r${register},${value}`, register, 0xe, value);
    const [name, mask] = CONDITIONS[relation];
    jump(code, name, mask, target);
  },
  return: (code) => bytes(code, "br %r14", [0x07, 0xfe]),
};

export const s390xArguments: Arguments = {
  countRegister: 8,
  characterRegister: 0,
  count: (code) => bytes(code, "lg %r8,0(%r15)", [0xe3, 0x80, 0xf0, 0x00, 0x00, 0x04]),
  take(code) {
    bytes(code, "sllg %r9,%r8,3", [0xeb, 0x98, 0x00, 0x03, 0x00, 0x0d]);
    bytes(code, "lg %r9,0(%r9,%r15)", [0xe3, 0x99, 0xf0, 0x00, 0x00, 0x04]);
    aghi(code, 8, -1);
  },
  load: (code, index) => bytes(code, () => `llgc %r0,${index}(%r9)`, [0xe3, 0x00, 0x90, index, 0x00, 0x90]),
  lower: (code) => bytes(code, () => `oill %r0,${CASE}`, [0xa5, 0x0b, 0x00, CASE]),
};
