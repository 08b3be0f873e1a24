/**
 * libc's constants: those of Linux's asm-generic headers, which all architectures here share.
 */

export const NULL = null;

// sys/wait.h
export const WNOHANG = 1;

// signal.h
export const SIG_DFL = 0;
export const SIG_IGN = 1;
export const SA_NOCLDSTOP = 0x1;
export const SA_RESTART = 0x10000000;
export const SA_RESETHAND = 0x80000000;
export const SIGINT = 2;
export const SIGILL = 4;
export const SIGTRAP = 5;
export const SIGABRT = 6;
export const SIGBUS = 7;
export const SIGFPE = 8;
export const SIGSEGV = 11;
export const SIGPIPE = 13;
export const SIGTERM = 15;
export const SIGCHLD = 17;
export const SIGXFSZ = 25;
export const SIGPWR = 30;
export const SIGSYS = 31;

/**
 * The standard signals, a line each from number 1 on: name, and description by strsignal(3) in the C locale. One text,
 * because 31 of them are memory that a start of the hosted build has not.
 */
const SIGNALS = `
SIGHUP Hangup
SIGINT Interrupt
SIGQUIT Quit
SIGILL Illegal instruction
SIGTRAP Trace/breakpoint trap
SIGABRT Aborted
SIGBUS Bus error
SIGFPE Floating point exception
SIGKILL Killed
SIGUSR1 User defined signal 1
SIGSEGV Segmentation fault
SIGUSR2 User defined signal 2
SIGPIPE Broken pipe
SIGALRM Alarm clock
SIGTERM Terminated
SIGSTKFLT Stack fault
SIGCHLD Child exited
SIGCONT Continued
SIGSTOP Stopped (signal)
SIGTSTP Stopped
SIGTTIN Stopped (tty input)
SIGTTOU Stopped (tty output)
SIGURG Urgent I/O condition
SIGXCPU CPU time limit exceeded
SIGXFSZ File size limit exceeded
SIGVTALRM Virtual timer expired
SIGPROF Profiling timer expired
SIGWINCH Window changed
SIGIO I/O possible
SIGPWR Power failure
SIGSYS Bad system call
`;

/** The name and the description of a signal; undefined if it has none. */
export function describeSignal(signo: number): { name: string; description: string } | undefined {
  let start = 1;
  for (let number = 1; number < signo && start > 0; number++) start = SIGNALS.indexOf("\n", start) + 1;
  const space = SIGNALS.indexOf(" ", start);
  if (!(signo > 0 && (signo | 0) === signo && start > 0 && space > 0)) return undefined;
  return {
    name: SIGNALS.slice(start, space),
    description: SIGNALS.slice(space + 1, SIGNALS.indexOf("\n", space)),
  };
}
