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
  geteuid,
  getpid,
  kill,
  makecontext,
  NULL,
  O_CLOEXEC,
  O_RDONLY,
  open,
  PR_SET_DUMPABLE,
  prctl,
  read,
  readlink,
  SIG_DFL,
  SIG_IGN,
  SIG_SETMASK,
  SIGABRT,
  SIGBUS,
  SIGCHLD,
  SIGFPE,
  SIGILL,
  SIGPIPE,
  SIGPWR,
  SIGRTMAX,
  SIGSEGV,
  SIGSYS,
  SIGTRAP,
  SIGXFSZ,
  STDERR_FILENO,
  STDIN_FILENO,
  SUID_DUMP_DISABLE,
  setcontext,
  sigaction,
  sigprocmask,
  sscanf,
} from "./libc.ts";
import { residence } from "./memory.ts";
import { type Call, call, goto, int64, load, type Range, type Routine, routine, uint64 } from "./routine.ts";
import { offsetof as offsetofSigaction, sizeof, structSigaction } from "./sigaction.ts";

/**
 * Bun 1.4.5 catches these to report a crash, and ignores SIGPIPE and SIGXFSZ. It catches SIGPWR too, with which
 * its threads stop each other: that has to go on as long as it has threads.
 *
 * A caught SIGSEGV would be an order to die that any container of the pod can give to PID 1; at SIG_DFL the
 * kernel discards it (pid_namespaces(7)).
 */
const SIGNALS_OF_BUN = [SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGPIPE, SIGXFSZ, SIGSYS] as const;

/** Puts the signals that Bun catches or ignores back to their defaults. To be done first: its handlers can hang. */
export function resetSignals(): void {
  const byDefault = structSigaction(SIG_DFL);
  for (const signo of SIGNALS_OF_BUN) sigaction(signo, byDefault, NULL);
}

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
 * Blocks every signal but Bun's own SIGPWR, so that no handler interrupts JavaScript.
 *
 * @returns the signal mask as it was, but that Bun had unblocked SIGPWR
 */
function blockSignals(): Uint8Array {
  const inherited = new Uint8Array(sizeof.sigset_t);
  const all = new Uint8Array(sizeof.sigset_t).fill(0xff);
  all[(SIGPWR - 1) >> 3] = 0xff & ~(1 << ((SIGPWR - 1) & 7));
  sigprocmask(SIG_SETMASK, all, inherited);
  return inherited;
}

/** A program's last routine. */
export interface Rest {
  readonly loop: Routine;
  /** Gives the memory of the runtime back, and then enters `loop`. */
  readonly withoutRuntime: Routine;
  /** Where `withoutRuntime` runs; undefined if the runtime has to stay. */
  stack: Range | undefined;
  /** The page of all routines, once they are in memory. */
  page: Range | undefined;
}

/**
 * Declares the routine in which the program stays. It first hands the process back as it came, without the
 * descriptors of Bun and with the signal mask, and closes it to all others.
 *
 * From when it is put into memory until just before its last call, every signal is blocked.
 */
export function atRest(last: Call): Rest {
  const loop = routine(() => {
    const mask = blockSignals();
    // Before any other is opened: there may be room for no more.
    for (const fd of descriptorsOfBun()) close(fd);
    const calls: Call[] = [];
    // Nobody without CAP_SYS_PTRACE can look into it or take it over (PR_SET_DUMPABLE(2const), ptrace(2)): else every
    // container of the pod with PID 1's user could, and would live on in PID 1 when it has itself ended. Not where
    // that user is root: a runtime that is root without that capability could not join the pod any more.
    if (geteuid() !== 0) calls.push(call(prctl, PR_SET_DUMPABLE, SUID_DUMP_DISABLE));
    // What died before SIGCHLD was caught, during a start that is longer than a C program's, is reaped now.
    calls.push(call(kill, getpid(), SIGCHLD));
    calls.push(call(sigprocmask, SIG_SETMASK, mask, NULL), last);
    return calls;
  });
  const withoutRuntime = routine((page) => {
    const home = residence(page);
    rest.stack = home?.stack;
    rest.page = page;
    return [call(sigaction, SIGPWR, structSigaction(SIG_DFL), NULL), ...(home?.calls ?? []), goto(loop)];
  });
  const rest: Rest = { loop, withoutRuntime, stack: undefined, page: undefined };
  return rest;
}

/** Offsets in ucontext_t (sys/ucontext.h), the same on x86-64 and arm64: uc_stack is a stack_t at 16. */
export const offsetof = { ss_sp: 16, ss_size: 32 } as const;

/**
 * Whether any signal but SIGPWR has a handler outside of this page, one of Bun's: with JSC_SIGNAL_FOR_GC in the
 * environment its threads stop each other with another signal. Its code must not go as long as that can come.
 */
function hasHandlerOutside(page: Range): boolean {
  const action = structSigaction(SIG_DFL);
  const view = new DataView(action.buffer);
  for (let signo = 1; signo <= SIGRTMAX; signo++) {
    if (signo === SIGPWR || sigaction(signo, NULL, action) < 0) continue;
    const sa_handler = uint64(view, offsetofSigaction.sa_handler);
    if (sa_handler > SIG_IGN && !(page.start <= sa_handler && sa_handler < page.end)) return true;
  }
  return false;
}

/** More than a ucontext_t has on x86-64 (968) and arm64 (4560), in bytes. */
const SIZEOF_UCONTEXT = 8192;

/** The number of threads in /proc/PID/stat (proc_pid_stat(5), field 20), for sscanf(3). */
const NUM_THREADS = `%*d (%*[^)]) %*c${" %*s".repeat(16)} %d`;

/**
 * Enters the routine in which the program stays. It never returns.
 *
 * With the runtime goes the stack that it used: the routine begins anew where the stack began, over the frames of
 * Bun (makecontext(3)). If there is another thread or another handler, which would be left without its code, the
 * runtime stays.
 */
export function enter({ loop, withoutRuntime, stack, page }: Rest): void {
  if (stack !== undefined && page !== undefined && !hasHandlerOutside(page)) {
    const context = new Uint8Array(SIZEOF_UCONTEXT);
    getcontext(context);
    const view = new DataView(context.buffer);
    int64({ view, offset: offsetof.ss_sp }, stack.start);
    int64({ view, offset: offsetof.ss_size }, stack.end - stack.start);
    makecontext(context, load(withoutRuntime) as Pointer, 0);
    const path = cString("/proc/self/stat");
    const format = cString(NUM_THREADS);
    const text = new Uint8Array(1024);
    const threads = new Int32Array([UNKNOWN]);
    // From here on no function of JavaScript is entered, no loop is run and nothing is allocated: nothing that
    // makes the runtime start a thread.
    const fd = open(path, O_RDONLY | O_CLOEXEC);
    read(fd, text, 1023);
    close(fd);
    sscanf(text, format, threads);
    // qemu-user says 0.
    if (threads[0] === 1 || threads[0] === 0) setcontext(context);
  }
  CFunction({ ptr: load(loop) as Pointer, args: [], returns: "void" })();
}

const UNKNOWN = -1;
