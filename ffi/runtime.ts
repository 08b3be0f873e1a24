/**
 * What Bun changed in this process before the first line of ours ran, and how it is put back.
 */
import {
  close,
  F_GETFD,
  FD_CLOEXEC,
  fcntl,
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
  sigaction,
  sigprocmask,
} from "./libc.ts";
import { call, type Routine, routine, type Step } from "./routine.ts";
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
 * Steps after which descriptors, signal dispositions and signal mask are those that this process was given.
 *
 * From here on every signal is blocked, until the last of the steps: while JavaScript runs, no handler
 * interrupts it. What Bun replaced without keeping it cannot be put back: whether the process was started with
 * one of Bun's signals ignored, or with SIGPWR blocked.
 */
function handBack(): Step[] {
  const inherited = new Uint8Array(sizeof.sigset_t);
  sigprocmask(SIG_SETMASK, new Uint8Array(sizeof.sigset_t).fill(0xff), inherited);
  const byDefault = structSigaction(SIG_DFL);
  return [
    ...descriptorsOfBun().map((fd) => call(close, fd)),
    ...SIGNALS_OF_BUN.map((signo) => call(sigaction, signo, byDefault, NULL)),
    call(sigprocmask, SIG_SETMASK, inherited, NULL),
  ];
}

/** A routine that hands the process back as it came, and then does this. */
export const atRest = (step: Step): Routine => routine(() => [...handBack(), step]);
