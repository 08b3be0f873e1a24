/**
 * What Bun changed in this process before the first line of ours ran, and how it is put back.
 */
import { CFunction, type Pointer } from "bun:ffi";
import {
  close,
  cString,
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
  setcontext,
  sigaction,
  sigprocmask,
} from "./libc.ts";
import { type Residence, residence } from "./memory.ts";
import { type Call, call, int64, load, type Range, type Routine, routine } from "./routine.ts";
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

/** Whether the link in /proc/self/fd of a descriptor says this; undefined if the descriptor is closed. */
function isLinkedTo(link: string, fd: number): boolean | undefined {
  const target = new Uint8Array(64);
  const length = Number(readlink(cString(`/proc/self/fd/${fd}`), target, target.length));
  return length < 0 ? undefined : new TextDecoder().decode(target.subarray(0, length)) === link;
}

const isCloseOnExec = (fd: number): boolean => fcntl(fd, F_GETFD) === FD_CLOEXEC;

/**
 * The descriptors that Bun opened: /dev/null in place of a closed standard descriptor, an eventpoll, an eventfd.
 *
 * All of them are close-on-exec, which no descriptor that came through execve(2) can be; but Bun sets that on
 * inherited ones from 4 on as well. So above 2 it is the first eventpoll and the first eventfd behind it: each
 * got the lowest number that was free, and so there is no gap before it.
 */
export function descriptorsOfBun(): number[] {
  const found: number[] = [];
  let fd = STDIN_FILENO;
  for (; fd <= STDERR_FILENO; fd++) if (isCloseOnExec(fd)) found.push(fd);
  for (const link of ["anon_inode:[eventpoll]", "anon_inode:[eventfd]"]) {
    for (; ; fd++) {
      const linked = isLinkedTo(link, fd);
      if (linked === undefined) return found;
      if (linked && isCloseOnExec(fd)) break;
    }
    found.push(fd++);
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
 * A routine that hands the process back as it was given to us, gives the runtime's memory back, and then makes
 * `last`.
 *
 * From when it is put into memory until just before that call, every signal is blocked.
 */
export const atRest = (last: Call): Routine =>
  routine((page) => {
    const mask = blockSignals();
    const calls: Call[] = [];
    for (const fd of descriptorsOfBun()) calls.push(call(close, fd));
    const byDefault = structSigaction(SIG_DFL);
    for (const signo of SIGNALS_OF_BUN) calls.push(call(sigaction, signo, byDefault, NULL));
    home = residence(page);
    if (home !== undefined) calls.push(...home.calls);
    calls.push(call(sigprocmask, SIG_SETMASK, mask, NULL), last);
    return calls;
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
  int64({ view, offset: offsetof.ss_sp }, stack.start);
  int64({ view, offset: offsetof.ss_size }, stack.end - stack.start);
  makecontext(context, address, 0);
  setcontext(context);
}
