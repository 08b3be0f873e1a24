/**
 * glibc through bun:ffi: its functions as they are, and its variables by their addresses.
 */
import { dlopen, FFIType } from "bun:ffi";

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
export const SIG_SETMASK = 2;
export const SIGRTMAX = 64;

const LIBC = "libc.so.6";

/** Ends the program, before there is a libc to do it with. */
function refuse(reason: string): never {
  console.error(`Error: ${reason}`);
  process.exit(1);
}

/** The functions of libc. */
export type LibcFunctions = ReturnType<typeof openLibc>;

/** Loads libc's functions; where there is no glibc that can be called, ends the program with one line and 1. */
export function openLibc() {
  const { platform, arch } = process;
  if (platform !== "linux" || (arch !== "x64" && arch !== "arm64"))
    refuse(`pause needs Linux with glibc on x64 or arm64, not ${platform} ${arch}`);
  try {
    return dlopen(LIBC, {
      __errno_location: { args: [], returns: "ptr" },
      _exit: { args: ["i32"], returns: "void" },
      close: { args: ["i32"], returns: "i32" },
      fcntl: { args: ["i32", "i32"], returns: "i32" },
      getcontext: { args: ["ptr"], returns: "i32" },
      geteuid: { args: [], returns: "u32" },
      getpagesize: { args: [], returns: "i32" },
      getpid: { args: [], returns: "i32" },
      // Variadic; called without arguments for the function.
      makecontext: { args: ["ptr", "ptr", "i32"], returns: "void" },
      // As a pointer, MAP_FAILED would be 2 ** 64.
      mmap: { args: ["ptr", "u64", "i32", "i32", "i32", "i64"], returns: FFIType.i64_fast },
      mprotect: { args: ["ptr", "u64", "i32"], returns: "i32" },
      open: { args: ["buffer", "i32"], returns: "i32" },
      pthread_self: { args: [], returns: "ptr" },
      read: { args: ["i32", "buffer", "u64"], returns: FFIType.i64_fast },
      readlink: { args: ["buffer", "buffer", "u64"], returns: FFIType.i64_fast },
      // Variadic; called with one pointer behind the format.
      sscanf: { args: ["buffer", "buffer", "buffer"], returns: "i32" },
      setcontext: { args: ["ptr"], returns: "i32" },
      sigaction: { args: ["i32", "ptr", "ptr"], returns: "i32" },
      sigprocmask: { args: ["i32", "ptr", "ptr"], returns: "i32" },
      strcasecmp: { args: ["ptr", "buffer"], returns: "i32" },
      write: { args: ["i32", "buffer", "u64"], returns: FFIType.i64_fast },
      // Only routines call these, by their addresses: each function with arguments costs memory and time at a start.
      madvise: {},
      munmap: {},
      pause: {},
      prctl: {},
      waitpid: {},
      // A variable of the loader.
      __libc_stack_end: {},
    }).symbols;
  } catch (error) {
    // Among others: another libc, or BUN_JSC_useJIT=0, without which bun:ffi cannot call anything.
    refuse(`libc cannot be called: ${error instanceof Error ? error.message : error}`);
  }
}

/** The address of a variable of libc or of its loader; undefined if this version has none of that name. */
export function variable(name: string): number | undefined {
  try {
    const symbol = dlopen(LIBC, { [name]: {} }).symbols[name];
    return symbol === undefined ? undefined : addressOf(symbol);
  } catch {
    return undefined;
  }
}

/**
 * The address of what `dlopen` of bun:ffi has loaded, which keeps it in the property `ptr`.
 *
 * @throws {TypeError} if it is not one of those.
 */
export function addressOf(symbol: object): number {
  const { ptr } = symbol as { readonly ptr?: unknown };
  if (typeof ptr !== "number") throw new TypeError("not a symbol of libc");
  return ptr;
}

/** A C string of ASCII characters. bun:ffi's own "cstring" takes longer to come into being than a whole start. */
export function cString(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length + 1);
  for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
  return bytes;
}
