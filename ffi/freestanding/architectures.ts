/**
 * What differs between the architectures of Linux: one table each, by its name in OCI images.
 *
 * System calls: arch/x86/entry/syscalls/syscall_64.tbl, arch/arm/tools/syscall.tbl, include/uapi/asm-generic/unistd.h
 * (arm64, loong64, riscv64), arch/powerpc/kernel/syscalls/syscall.tbl, arch/s390/kernel/syscalls/syscall.tbl.
 */
import { aarch64, aarch64Arguments } from "../assembler/aarch64.ts";
import { withArguments } from "../assembler/arguments.ts";
import { arm, armArguments } from "../assembler/arm.ts";
import { loong64, loong64Arguments } from "../assembler/loong64.ts";
import { ppc64le, ppc64leArguments } from "../assembler/ppc64le.ts";
import { riscv64, riscv64Arguments } from "../assembler/riscv64.ts";
import type { Encoder } from "../assembler/routine.ts";
import { s390x, s390xArguments } from "../assembler/s390x.ts";
import { x86_64, x86_64Arguments } from "../assembler/x86_64.ts";

/** The system calls that a pause makes, by their names in Linux. */
export type SystemCall =
  | "exit_group"
  | "geteuid"
  | "getpid"
  | "prctl"
  | "rt_sigaction"
  | "rt_sigreturn"
  | "wait4"
  | "write";

/** One architecture. */
export interface Architecture {
  readonly encoder: Encoder;
  /** e_machine and e_flags of the ELF header (elf.h, and the ABI supplements). */
  readonly machine: number;
  readonly flags: number;
  readonly isLittleEndian: boolean;
  /** The largest page that its kernels use, in bytes: what a segment is aligned to. */
  readonly pageSize: number;
  readonly systemCalls: Readonly<Record<SystemCall, number>>;
  /** What libc's pause is here: the number and what is passed. Newer ones have ppoll(NULL, 0, NULL, NULL, 0). */
  readonly pause: readonly [number: number, values: readonly number[], name: "pause" | "ppoll"];
  /** The fields of the kernel's struct sigaction (linux/signal_types.h), in their order. All but sa_mask are words. */
  readonly sigaction: readonly ("sa_handler" | "sa_flags" | "sa_restorer" | "sa_mask")[];
  /** Whether a handler returns to a routine of ours, because the kernel brings none, or not always. */
  readonly hasRestorer: boolean;
}

/** asm-generic/unistd.h. */
const GENERIC = {
  exit_group: 94,
  geteuid: 175,
  getpid: 172,
  prctl: 167,
  rt_sigaction: 134,
  rt_sigreturn: 139,
  wait4: 260,
  write: 64,
} as const;
/** The first architecture's numbers, which arm and s390x took over. arm's geteuid is geteuid32: the other has 16 bits. */
const I386_LIKE = {
  exit_group: 248,
  geteuid: 201,
  getpid: 20,
  prctl: 172,
  rt_sigaction: 174,
  rt_sigreturn: 173,
  wait4: 114,
  write: 4,
} as const;
const PAUSE = [29, [], "pause"] as const;
const PPOLL = [73, [0, 0, 0, 0, 0], "ppoll"] as const;

/** What most of them have. Handlers return by way of the vDSO. */
const USUAL = {
  flags: 0,
  isLittleEndian: true,
  pageSize: 0x1000,
  sigaction: ["sa_handler", "sa_flags", "sa_restorer", "sa_mask"],
  hasRestorer: false,
} as const;

/** asm-generic's struct sigaction, of architectures that never had a restorer. */
const WITHOUT_RESTORER = ["sa_handler", "sa_flags", "sa_mask"] as const;

export const architectures: Readonly<Record<string, Architecture>> = {
  amd64: {
    ...USUAL,
    encoder: withArguments(x86_64, x86_64Arguments),
    machine: 62,
    systemCalls: {
      exit_group: 231,
      geteuid: 107,
      getpid: 39,
      prctl: 157,
      rt_sigaction: 13,
      rt_sigreturn: 15,
      wait4: 61,
      write: 1,
    },
    pause: [34, [], "pause"],
    hasRestorer: true, // the kernel kills who has none (arch/x86/kernel/signal_64.c)
  },
  arm: {
    ...USUAL, // but for the vDSO: the kernel's own page has it (arch/arm/kernel/signal.c, get_signal_page)
    encoder: withArguments(arm, armArguments),
    machine: 40,
    flags: 0x05000000, // EF_ARM_EABI_VER5
    systemCalls: I386_LIKE,
    pause: PAUSE,
  },
  arm64: {
    ...USUAL,
    encoder: withArguments(aarch64, aarch64Arguments),
    machine: 183,
    pageSize: 0x10000,
    systemCalls: GENERIC,
    pause: PPOLL,
  },
  loong64: {
    ...USUAL,
    encoder: withArguments(loong64, loong64Arguments),
    machine: 258,
    flags: 0x41, // without floating point, version 1 of the ABI of object files (LoongArch ELF psABI)
    pageSize: 0x10000,
    systemCalls: GENERIC,
    pause: PPOLL,
    sigaction: WITHOUT_RESTORER,
  },
  ppc64le: {
    ...USUAL,
    encoder: withArguments(ppc64le, ppc64leArguments),
    machine: 21,
    flags: 2, // ELFv2: a handler's address is that of its first instruction
    pageSize: 0x10000,
    systemCalls: {
      exit_group: 234,
      geteuid: 49,
      getpid: 20,
      prctl: 171,
      rt_sigaction: 173,
      rt_sigreturn: 172,
      wait4: 114,
      write: 4,
    },
    pause: PAUSE,
  },
  riscv64: {
    ...USUAL, // flags: neither compressed instructions nor floating point
    encoder: withArguments(riscv64, riscv64Arguments),
    machine: 243,
    systemCalls: GENERIC,
    pause: PPOLL,
    sigaction: WITHOUT_RESTORER,
  },
  s390x: {
    // The vDSO has it, or an svc on the stack, which the kernel knows although it cannot run there. One of ours would
    // have to make another call, sigreturn, because a handler without SA_SIGINFO gets the old frame.
    ...USUAL,
    encoder: withArguments(s390x, s390xArguments),
    machine: 22,
    isLittleEndian: false,
    systemCalls: I386_LIKE,
    pause: PAUSE,
  },
};
