/**
 * What Bun changed in this process before the first line of ours ran, and how it is put back.
 */
import { CFunction, type Pointer } from "bun:ffi";
import {
  close,
  F_GETFD,
  FD_CLOEXEC,
  fcntl,
  getcontext,
  makecontext,
  NULL,
  readlink,
  SIG_DFL,
  SIG_SETMASK,
  SIGABRT,
  SIGBUS,
  SIGFPE,
  SIGILL,
  SIGPIPE,
  SIGPWR,
  SIGSEGV,
  SIGSYS,
  SIGTRAP,
  SIGXFSZ,
  STDERR_FILENO,
  STDIN_FILENO,
  STDOUT_FILENO,
  setcontext,
  sigaction,
  sigprocmask,
} from "./libc.ts";
import { type Residence, residence } from "./memory.ts";
import { call, load, type Range, type Routine, routine, type Step } from "./routine.ts";
import { sizeof, structSigaction } from "./sigaction.ts";

/**
 * Bun 1.4.5 catches these to report a crash or to stop its threads, and ignores SIGPIPE and SIGXFSZ.
 *
 * A caught SIGSEGV would be an order to die that any container of the pod can give to PID 1; at SIG_DFL the
 * kernel discards it (pid_namespaces(7)).
 */
const SIGNALS_OF_BUN = [
  SIGILL,
  SIGTRAP,
  SIGABRT,
  SIGBUS,
  SIGFPE,
  SIGSEGV,
  SIGPIPE,
  SIGXFSZ,
  SIGPWR,
  SIGSYS,
] as const;

/** What the link in /proc/self/fd says of a descriptor, or "" if it is closed. */
function linkOf(fd: number): string {
  const target = new Uint8Array(64);
  const length = readlink(`/proc/self/fd/${fd}`, target, target.length);
  return length < 0 ? "" : new TextDecoder().decode(target.subarray(0, Number(length)));
}

/**
 * The descriptors that Bun opened: /dev/null in place of a closed standard descriptor, an eventpoll, an eventfd.
 *
 * All of them are close-on-exec, which no descriptor that came through execve(2) can be; but Bun sets that on
 * inherited ones from 4 on as well. So above 2 it is the first eventpoll and the first eventfd behind it: each
 * got the lowest number that was free, and so there is no gap before it.
 */
export function descriptorsOfBun(): number[] {
  const closeOnExec = (fd: number) => fcntl(fd, F_GETFD) === FD_CLOEXEC;
  const found = [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO].filter(closeOnExec);
  let fd = STDERR_FILENO;
  for (const link of ["anon_inode:[eventpoll]", "anon_inode:[eventfd]"]) {
    let target: string;
    do target = linkOf(++fd);
    while (target !== "" && !(target === link && closeOnExec(fd)));
    if (target !== "") found.push(fd);
  }
  return found;
}

/**
 * Blocks every signal, so that no handler interrupts JavaScript, and returns the mask as it was.
 *
 * But for SIGPWR: Bun unblocked it, whatever it had been.
 */
function blockSignals(): Uint8Array {
  const inherited = new Uint8Array(sizeof.sigset_t);
  sigprocmask(SIG_SETMASK, new Uint8Array(sizeof.sigset_t).fill(0xff), inherited);
  return inherited;
}

let home: Residence | undefined;

/**
 * A routine that hands the process back as it was given to us, gives the runtime's memory back, and then takes
 * `step`.
 *
 * From when it is put into memory until just before that step, every signal is blocked.
 */
export const atRest = (step: Step): Routine =>
  routine((code) => {
    const mask = blockSignals();
    const byDefault = structSigaction(SIG_DFL);
    home = residence(code);
    return [
      ...descriptorsOfBun().map((fd) => call(close, fd)),
      ...SIGNALS_OF_BUN.map((signo) => call(sigaction, signo, byDefault, NULL)),
      ...(home?.steps ?? []),
      call(sigprocmask, SIG_SETMASK, mask, NULL),
      step,
    ];
  });

/** Offsets in ucontext_t (sys/ucontext.h), the same on x86-64 and arm64: uc_stack is a stack_t at 16. */
export const offsetof = { ss_sp: 16, ss_size: 32 } as const;

/** More than a ucontext_t has on x86-64 (968) and arm64 (4560), in bytes. */
const SIZEOF_UCONTEXT = 8192;

/**
 * Enters a routine that never returns.
 *
 * If the runtime's memory is to go, then the stack does too: the routine begins anew where the stack began, over
 * the frames of Bun (makecontext(3)).
 */
export function enter(wanted: Routine): void {
  const address = load(wanted) as Pointer;
  if (home === undefined) CFunction({ ptr: address, args: [], returns: "void" })();
  else resumeOn(home.stack, address);
}

/** Leaves the stack of this call for another, and calls a function there (makecontext(3)). */
function resumeOn(stack: Range, address: Pointer): void {
  const context = new Uint8Array(SIZEOF_UCONTEXT);
  getcontext(context);
  const view = new DataView(context.buffer);
  view.setBigUint64(offsetof.ss_sp, BigInt(stack.start), true);
  view.setBigUint64(offsetof.ss_size, BigInt(stack.end - stack.start), true);
  makecontext(context, address, 0);
  setcontext(context);
}
