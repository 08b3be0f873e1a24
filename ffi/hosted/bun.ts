/**
 * What Bun 1.4.5 has changed in this process before the first line of ours ran, and how it is put back.
 */
import {
  NULL,
  SIG_DFL,
  SIG_IGN,
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
} from "../constants.ts";
import { F_GETFD, FD_CLOEXEC, type LibcFunctions, SIG_SETMASK, SIGRTMAX } from "./libc.ts";
import { type Range, readLink, readProc } from "./proc.ts";
import { offsetof, sizeof, structSigaction, uint } from "./structs.ts";

/**
 * Bun catches these to report a crash, and ignores SIGPIPE and SIGXFSZ. It catches SIGPWR too, with which its threads
 * stop each other: that has to go on as long as it has threads.
 *
 * A caught SIGSEGV would be an order to die that any container of the pod can give to PID 1; at SIG_DFL the
 * kernel discards it (pid_namespaces(7)).
 */
const SIGNALS = [SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGPIPE, SIGXFSZ, SIGSYS] as const;

/** Puts the signals that Bun catches or ignores back to their defaults. To be done first: its handlers can hang. */
export function resetSignals(libc: LibcFunctions): void {
  const byDefault = structSigaction(SIG_DFL);
  for (const signo of SIGNALS) libc.sigaction(signo, byDefault, NULL);
}

/**
 * Blocks every signal but Bun's own SIGPWR, so that no handler interrupts JavaScript.
 *
 * @returns the signal mask as it was, but that Bun had unblocked SIGPWR
 */
export function blockSignals(libc: LibcFunctions): Uint8Array {
  const inherited = new Uint8Array(sizeof.sigset_t);
  const all = new Uint8Array(sizeof.sigset_t).fill(0xff);
  all[(SIGPWR - 1) >> 3] = 0xff & ~(1 << ((SIGPWR - 1) & 7));
  libc.sigprocmask(SIG_SETMASK, all, inherited);
  return inherited;
}

/**
 * Whether any signal but SIGPWR has a handler outside of this page, one of Bun's: with JSC_SIGNAL_FOR_GC in the
 * environment its threads stop each other with another signal. Its code must not go as long as that can come.
 */
export function hasHandlerOutside(libc: LibcFunctions, page: Range): boolean {
  const action = structSigaction(SIG_DFL);
  for (let signo = 1; signo <= SIGRTMAX; signo++) {
    if (signo === SIGPWR || libc.sigaction(signo, NULL, action) < 0) continue;
    const sa_handler = uint(action, offsetof.sigaction.sa_handler, 8);
    if (sa_handler > SIG_IGN && !(page.start <= sa_handler && sa_handler < page.end)) return true;
  }
  return false;
}

/** Whether an eventpoll watches a descriptor (proc_pid_fdinfo(5): "tfd:" and the descriptor's number). */
function watches(libc: LibcFunctions, eventpoll: number, fd: number): boolean {
  const text = readProc(libc, `/proc/self/fdinfo/${eventpoll}`);
  for (let at = text.indexOf("tfd:"); at >= 0; at = text.indexOf("tfd:", at + 1))
    if (Number(text.slice(at + 4, text.indexOf("events:", at))) === fd) return true;
  return false;
}

/**
 * The descriptors that Bun opened: /dev/null in place of a closed standard descriptor, an eventpoll, and an eventfd
 * that it watches.
 *
 * All of them are close-on-exec, which no descriptor that came through execve(2) can be; but Bun sets that on
 * inherited ones from 4 on as well. Each got the lowest number that was free, so there is no gap before it. If an
 * eventpoll and an eventfd were inherited too, and more than one pair is possible, none of them is named.
 */
export function descriptorsOfBun(libc: LibcFunctions): number[] {
  const isCloseOnExec = (fd: number): boolean => libc.fcntl(fd, F_GETFD) === FD_CLOEXEC;
  const found: number[] = [];
  const eventpolls: number[] = [];
  const eventfds: number[] = [];
  let fd = 0;
  for (; fd < 3; fd++) if (isCloseOnExec(fd)) found.push(fd);
  for (; ; fd++) {
    const link = readLink(libc, `/proc/self/fd/${fd}`);
    if (link === undefined) break;
    if (link === "anon_inode:[eventpoll]" && isCloseOnExec(fd)) eventpolls.push(fd);
    if (link === "anon_inode:[eventfd]" && isCloseOnExec(fd)) eventfds.push(fd);
  }
  const isOnly = eventpolls.length === 1 && eventfds.length === 1;
  const pairs: number[][] = [];
  for (const eventpoll of eventpolls)
    for (const eventfd of eventfds)
      if (isOnly || watches(libc, eventpoll, eventfd)) pairs.push([eventpoll, eventfd]);
  if (pairs.length === 1 && pairs[0] !== undefined) found.push(...pairs[0]);
  return found;
}
