/**
 * libc under its own names: the functions and constants of this program, as glibc's headers have them.
 *
 * The constants are the same on x86-64 and arm64 (both use Linux's asm-generic values). Functions return
 * what they return in C; see the man page of that name.
 */
import { dlopen, FFIType } from "bun:ffi";

export const NULL = null;

// unistd.h
export const STDIN_FILENO = 0;
export const STDOUT_FILENO = 1;
export const STDERR_FILENO = 2;

// sys/wait.h
export const WNOHANG = 1;

// sys/mman.h
export const PROT_READ = 0x1;
export const PROT_WRITE = 0x2;
export const PROT_EXEC = 0x4;
export const MAP_PRIVATE = 0x02;
export const MAP_ANONYMOUS = 0x20;
export const MAP_FAILED = -1;

export const MADV_DONTNEED = 4;

// fcntl.h
export const O_RDONLY = 0;
export const O_CLOEXEC = 0o2000000;
export const F_GETFD = 1;
export const FD_CLOEXEC = 1;

// sys/prctl.h and linux/sched/coredump.h
export const PR_SET_DUMPABLE = 4;
export const SUID_DUMP_DISABLE = 0;

// signal.h
export const SIG_DFL = 0;
export const SIG_IGN = 1;
export const SIG_SETMASK = 2;
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
export const SIGRTMAX = 64;
export const SA_NOCLDSTOP = 0x1;

const { symbols } = loadLibc();

/** Ends the program, before there is a libc to do it with. */
function refuse(reason: string): never {
  console.error(`Error: ${reason}`);
  process.exit(1);
}

function loadLibc() {
  const { platform, arch } = process;
  if (platform !== "linux" || (arch !== "x64" && arch !== "arm64"))
    refuse(`pause needs Linux with glibc on x64 or arm64, not ${platform} ${arch}`);
  try {
    return dlopen("libc.so.6", {
      __errno_location: { args: [], returns: "ptr" },
      _exit: { args: ["i32"], returns: "void" },
      close: { args: ["i32"], returns: "i32" },
      // Variadic in C; called with no more than the format, it takes its arguments as any other function.
      dprintf: { args: ["i32", "buffer"], returns: "i32" },
      fcntl: { args: ["i32", "i32"], returns: "i32" },
      getcontext: { args: ["buffer"], returns: "i32" },
      geteuid: { args: [], returns: "u32" },
      getpagesize: { args: [], returns: "i32" },
      getpid: { args: [], returns: "i32" },
      kill: { args: ["i32", "i32"], returns: "i32" },
      madvise: { args: ["ptr", "u64", "i32"], returns: "i32" },
      // Variadic; called without arguments for the function.
      makecontext: { args: ["buffer", "ptr", "i32"], returns: "void" },
      // As a pointer, MAP_FAILED would be 2 ** 64.
      mmap: { args: ["ptr", "u64", "i32", "i32", "i32", "i64"], returns: FFIType.i64_fast },
      mprotect: { args: ["ptr", "u64", "i32"], returns: "i32" },
      munmap: { args: ["ptr", "u64"], returns: "i32" },
      open: { args: ["buffer", "i32"], returns: "i32" },
      pause: { args: [], returns: "i32" },
      // Variadic; this option takes one argument.
      prctl: { args: ["i32", "u64"], returns: "i32" },
      pthread_self: { args: [], returns: "ptr" },
      read: { args: ["i32", "buffer", "u64"], returns: FFIType.i64_fast },
      readlink: { args: ["buffer", "buffer", "u64"], returns: FFIType.i64_fast },
      // Variadic; called with one pointer behind the format.
      sscanf: { args: ["buffer", "buffer", "buffer"], returns: "i32" },
      setcontext: { args: ["buffer"], returns: "i32" },
      sigaction: { args: ["i32", "ptr", "ptr"], returns: "i32" },
      sigprocmask: { args: ["i32", "ptr", "ptr"], returns: "i32" },
      strsignal: { args: ["i32"], returns: "cstring" },
      waitpid: { args: ["i32", "ptr", "i32"], returns: "i32" },
      write: { args: ["i32", "buffer", "u64"], returns: FFIType.i64_fast },
    });
  } catch (error) {
    // Among others: another libc, or BUN_JSC_useJIT=0, without which bun:ffi cannot call anything.
    refuse(`libc cannot be called: ${error instanceof Error ? error.message : error}`);
  }
}

/** A C string of ASCII characters. bun:ffi's own "cstring" takes longer to come into being than a whole start. */
export function cString(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length + 1);
  for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
  return bytes;
}

/** dprintf(3), without conversions. */
export const dprintf = (fd: number, text: string): number => symbols.dprintf(fd, cString(text));

export const {
  __errno_location,
  _exit,
  close,
  fcntl,
  getcontext,
  geteuid,
  getpagesize,
  getpid,
  kill,
  madvise,
  makecontext,
  mmap,
  mprotect,
  munmap,
  open,
  pause,
  prctl,
  pthread_self,
  read,
  readlink,
  setcontext,
  sigprocmask,
  sscanf,
  strsignal,
  waitpid,
  write,
} = symbols;

/** The address of the stack guard, where that is a variable and not in the thread's block; else undefined. */
export const __stack_chk_guard: number | undefined =
  process.arch === "arm64"
    ? addressOf(dlopen("libc.so.6", { __stack_chk_guard: {} }).symbols.__stack_chk_guard)
    : undefined;

/**
 * The address of a symbol that was loaded by `dlopen` of bun:ffi, which keeps it in the property `ptr`.
 *
 * @throws {TypeError} if it is not one of those.
 */
export function addressOf(symbol: object): number {
  const { ptr } = symbol as { readonly ptr?: unknown };
  if (typeof ptr !== "number") throw new TypeError("not a symbol of libc");
  return ptr;
}

/** sigaction(2) as libc has it, on addresses. `sigaction.ts` is the one to call. */
export const sigaction = symbols.sigaction;
