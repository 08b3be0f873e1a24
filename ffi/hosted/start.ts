/**
 * init.ts under Bun: from the first line of ours to the last jump, in its order.
 *
 * What runs here at every start does without most of JavaScript's library: its parts come into being when they are
 * first used, and Math, Reflect, TextEncoder, or a method of Array that is itself written in JavaScript (map, filter,
 * sort …) then takes as long as all the rest of a file.
 */
import { CFunction, type Pointer, read, toArrayBuffer } from "bun:ffi";
import { assemble, type Step } from "../assembler/routine.ts";
import { NULL, SIG_DFL, SIGCHLD, SIGPWR } from "../constants.ts";
import { ascii, type Main, stderr, stdout } from "../libc.ts";
import { blockSignals, descriptorsOfBun, hasHandlerOutside, resetSignals } from "./bun.ts";
import { type SharedObject, sharedObject } from "./elf.ts";
import {
  addressOf,
  cString,
  type LibcFunctions,
  MADV_DONTNEED,
  O_CLOEXEC,
  O_RDONLY,
  openLibc,
  SIG_SETMASK,
  variable,
} from "./libc.ts";
import { surplus } from "./memory.ts";
import { besideLibc, mapPage, type Page } from "./page.ts";
import { type Mapping, parseMaps, type Range, readProc } from "./proc.ts";
import { ALIGNMENT, call, encoder, type Loop, writeHandler, writeLoop } from "./routines.ts";
import { someArgument, startOfStack } from "./stack.ts";
import { offsetof, setInt64, sizeof, structSigaction } from "./structs.ts";

/**
 * Runs `main`, and ends the process with what it returns.
 *
 * What `main` throws is one line on standard error and exit code 1. The end is `_exit`: the C program has
 * nothing left to do at exit(3), and Bun has things to do that nobody here needs.
 */
export function start(main: Main): never {
  const libc = openLibc();
  resetSignals(libc);
  let status = 1;
  try {
    const mask = blockSignals(libc);
    const page = mapPage(libc, besideLibc(libc));
    // Gone at rest: the calls that unmap everything else, and a ucontext_t.
    const scratch = mapPage(libc, page.end);
    const stack = startOfStack(libc);
    const write = (fd: number, text: string) => {
      libc.write(fd, ascii(text), text.length);
    };
    let reaps = false;
    let power = structSigaction(SIG_DFL);
    let wanted = { text: "", string: cString("") };
    const returned = main({
      argv: { some: (isWanted) => someArgument(stack, isWanted) },
      stderr,
      fprintf: write,
      getpid: libc.getpid,
      pause: () => leave(libc, page, scratch, stack, power, writeLoop(libc, page, { mask, reaps, scratch })),
      printf: (text) => write(stdout, text),
      sigaction(signo, { sa_handler, sa_flags }, oldact) {
        const isHandler = typeof sa_handler === "function";
        const address = isHandler ? writeHandler(libc, page, sa_handler, signo) : sa_handler;
        const action = structSigaction(address, sa_flags);
        // Bun's threads stop each other with that one: it is installed when they have gone.
        if (signo === SIGPWR) {
          power = action;
          return 0;
        }
        const result = libc.sigaction(signo, action, oldact);
        if (signo === SIGCHLD && result === 0) reaps = isHandler;
        return result;
      },
      strcasecmp(argument, text) {
        // Once for all arguments: a string for each would fill the heap.
        if (wanted.text !== text) wanted = { text, string: cString(text) };
        return libc.strcasecmp(argument as number as Pointer, wanted.string);
      },
    });
    // What came meanwhile, as SIGPIPE by writing to a closed pipe, now does what it does in C.
    page.seal();
    libc.sigprocmask(SIG_SETMASK, mask, NULL);
    status = returned;
  } catch (error) {
    const text = `Error: ${error instanceof Error ? error.message : error}\n`;
    const line = ascii(text.replace(/[^\0-\x7f]/g, "?"));
    libc.write(stderr, line, line.length);
  }
  libc._exit(status);
  throw new Error("_exit returned");
}

/**
 * Leaves JavaScript for good: gives back what Bun has opened and mapped, and enters the loop in which the program stays.
 *
 * With the runtime goes the stack that it used: the program begins anew where the stack began, over the frames of Bun
 * (makecontext(3)). Then SIGPWR gets what init.ts has for it. The runtime stays mapped, and the loop runs just the same,
 * if the memory map is not understood, or if there is another thread or another handler, which would be left without its
 * code.
 */
function leave(
  libc: LibcFunctions,
  page: Page,
  scratch: Page,
  stack: number,
  power: Uint8Array,
  { loop, rest }: Loop,
): never {
  page.seal();
  // Before any other is opened: there may be room for no more.
  for (const fd of descriptorsOfBun(libc)) libc.close(fd);
  if (prepareToLeave(libc, page, scratch, stack, power, rest)) {
    const path = cString("/proc/self/stat");
    const format = cString(NUM_THREADS);
    const text = new Uint8Array(1024);
    const threads = new Int32Array([UNKNOWN]);
    // From here on no function of JavaScript is entered, no loop is run and nothing is allocated: nothing that
    // makes the runtime start a thread.
    const fd = libc.open(path, O_RDONLY | O_CLOEXEC);
    libc.read(fd, text, 1023);
    libc.close(fd);
    libc.sscanf(text, format, threads);
    // qemu-user says 0.
    if (threads[0] === 1 || threads[0] === 0) libc.setcontext(scratch.start as Pointer);
  }
  CFunction({ ptr: loop as Pointer, args: [], returns: "void" })();
  throw new Error("the loop returned");
}

/** The number of threads in /proc/PID/stat (proc_pid_stat(5), field 20), for sscanf(3). */
const NUM_THREADS = `%*d (%*[^)]) %*c${" %*s".repeat(16)} %d`;
const UNKNOWN = -1;

/**
 * Fills the scratch pages: a ucontext_t in which everything is unmapped that a resting pause does not need, and behind
 * it the code that does so.
 *
 * @returns whether that can be done. If not, for whatever reason, the runtime stays.
 */
function prepareToLeave(
  libc: LibcFunctions,
  page: Page,
  scratch: Page,
  stack: number,
  power: Uint8Array,
  rest: number,
): boolean {
  const maps = parseMaps(readProc(libc, "/proc/self/maps"));
  if (maps === undefined || hasHandlerOutside(libc, page)) return false;
  const pageSize = libc.getpagesize();
  const object = libcAmong(maps, addressOf(libc.pause), pageSize);
  const stackMapping = mappingOf(maps, stack);
  if (object === undefined || stackMapping === undefined) return false;
  const { unmapped, emptied } = surplus(maps, {
    pageSize,
    stack,
    stackMapping,
    errno: Number(libc.__errno_location()),
    thread: threadOf(Number(libc.pthread_self())),
    rseq: rseqOf(Number(libc.pthread_self())),
    stackGuard: process.arch === "arm64" ? variable("__stack_chk_guard") : undefined,
    libc: object,
    pages: [page, scratch],
  });
  // First Bun's handler of SIGPWR, which only its other threads needed: anyone may send that signal, at any moment.
  const steps: Step[] = [call(libc.sigaction, SIGPWR, { label: "power" }, 0)];
  for (const { start, end } of unmapped) steps.push(call(libc.munmap, start, end - start));
  for (const { start, end } of emptied) steps.push(call(libc.madvise, start, end - start, MADV_DONTNEED));
  steps.push({ call: rest, values: [] });

  const context = scratch.start as Pointer;
  const parts = [
    { label: "power", data: power, alignment: ALIGNMENT },
    { label: "leave", steps, alignment: ALIGNMENT },
  ];
  try {
    const memory = scratch.memory.subarray(sizeof.ucontext);
    const { labels } = assemble(encoder, parts, memory, scratch.start + sizeof.ucontext);
    libc.getcontext(context);
    setInt64(scratch.memory, offsetof.ucontext.ss_sp, stackMapping.start);
    setInt64(scratch.memory, offsetof.ucontext.ss_size, stack - (stack % 16) - stackMapping.start);
    libc.makecontext(context, (labels.leave ?? 0) as Pointer, 0);
    scratch.seal();
  } catch {
    return false;
  }
  return true;
}

function mappingOf(maps: readonly Mapping[], address: number): Mapping | undefined {
  for (const mapping of maps) if (mapping.start <= address && address < mapping.end) return mapping;
  return undefined;
}

/** The shared object in which a function lies. */
function libcAmong(
  maps: readonly Mapping[],
  libcFunction: number,
  pageSize: number,
): SharedObject | undefined {
  const path = mappingOf(maps, libcFunction)?.name;
  for (const { start, name } of maps)
    if (name === path)
      return sharedObject(new Uint8Array(toArrayBuffer(start as Pointer, 0, pageSize)), start);
  return undefined;
}

/** More than glibc's struct pthread has on any architecture, in bytes (2368 on x86-64, 1856 on arm64, glibc 2.36). */
const SIZEOF_PTHREAD = 4096;

/** struct pthread: libc tells debuggers its size (nptl_db/structs.def). */
function threadOf(start: number): Range {
  const size = variable("_thread_db_sizeof_pthread");
  return { start, end: start + (size === undefined ? SIZEOF_PTHREAD : read.u32(size as Pointer, 0)) };
}

/** The least that the kernel writes: the original struct rseq, in bytes (linux/rseq.h). */
const SIZEOF_RSEQ = 32;

/** The thread's area for rseq(2), if libc has one: since glibc 2.35 it says where, counted from struct pthread. */
function rseqOf(thread: number): Range | undefined {
  const offset = variable("__rseq_offset");
  if (offset === undefined) return undefined;
  const size = read.u32((variable("__rseq_size") ?? 0) as Pointer, 0);
  const start = thread + read.i32(offset as Pointer, 4) * 2 ** 32 + read.u32(offset as Pointer, 0);
  return { start, end: start + (size > SIZEOF_RSEQ ? size : SIZEOF_RSEQ) };
}
