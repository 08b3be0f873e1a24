/**
 * What of this process's memory a resting pause needs, and how the rest of it is given back.
 *
 * waitpid, pause, write and _exit need libc, the thread's own block (errno, and what the kernel and libc keep
 * beside it), a stack and the page of our routines. Everything else is Bun's.
 */
import { type Pointer, toArrayBuffer } from "bun:ffi";
import {
  __errno_location,
  close,
  getpagesize,
  MADV_DONTNEED,
  madvise,
  munmap,
  O_CLOEXEC,
  O_RDONLY,
  open,
  pause,
  pthread_self,
  read,
} from "./libc.ts";
import { addressOf, call, type Range, type Step } from "./routine.ts";

/** More than glibc's struct pthread has on any architecture, in bytes (2304 on x86-64, glibc 2.36). */
const SIZEOF_PTHREAD = 4096;

/** How far the stack may have grown since its size was read, in bytes. */
const STACK_MARGIN = 1 << 17;

/** More stack than our routines and the libc functions they call use, in bytes. */
const DEEPEST_FRAME = 1024;

// elf.h
const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_GNU_RELRO = 0x6474e552;

/** A line of /proc/PID/maps (proc_pid_maps(5)). */
export interface Mapping extends Range {
  /** A path, a name in brackets, or "" */
  readonly name: string;
}

/** The size of a file of /proc that is still believed, in bytes: a start has about 60 mappings of 100 bytes each. */
const MOST = 1 << 16;

/** A file of /proc, as text; undefined if it cannot be read, or is longer than anything expected. */
function readProc(path: string): string | undefined {
  const fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return undefined;
  const bytes = new Uint8Array(MOST);
  let length = 0;
  let more: number;
  do {
    more = Number(read(fd, bytes.subarray(length), MOST - length));
    length += more;
  } while (more > 0);
  close(fd);
  return more < 0 || length === MOST ? undefined : new TextDecoder().decode(bytes.subarray(0, length));
}

/** The lines of /proc/PID/maps, in order of their addresses; undefined if one is not as proc_pid_maps(5) says. */
export function parseMaps(text: string): Mapping[] | undefined {
  const mappings: Mapping[] = [];
  for (const line of text.trimEnd().split("\n")) {
    const fields = /^([0-9a-f]+)-([0-9a-f]+) [r-][w-][x-][ps] [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ \d+ *(.*)$/.exec(
      line,
    );
    const [, start, end, name] = fields ?? [];
    if (start === undefined || end === undefined || name === undefined) return undefined;
    mappings.push({ start: Number.parseInt(start, 16), end: Number.parseInt(end, 16), name });
  }
  return mappings;
}

/** The number of threads and the address where the stack began, with argc (proc_pid_stat(5), fields 20 and 28). */
export function parseStat(text: string): { threads: number; startstack: number } | undefined {
  // The second field is a name in parentheses, which may itself contain anything.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [threads, startstack] = [Number(fields[20 - 3]), Number(fields[28 - 3])];
  return Number.isSafeInteger(threads) && Number.isSafeInteger(startstack)
    ? { threads, startstack }
    : undefined;
}

/** A shared object in memory, and the parts of it that a resting process can do without. */
interface Image extends Range {
  /** What is written only while the object is relocated, and lies before .dynamic and .got (.data.rel.ro). */
  readonly relocated: Range;
  /** What is zero at first (.bss). */
  readonly zero: Range;
}

/**
 * Reads the program headers of a loaded ELF object (gABI, chapter 5; Elf64_Ehdr and Elf64_Phdr in elf.h).
 *
 * | offset | size | of the ELF header | | offset | size | of a program header |
 * | --- | --- | --- | --- | --- | --- | --- |
 * | 0 | 4 | e_ident, its magic number | | 0 | 4 | p_type |
 * | 32 | 8 | e_phoff | | 16 | 8 | p_vaddr |
 * | 56 | 2 | e_phnum | | 32 | 8 | p_filesz |
 * | | | | | 40 | 8 | p_memsz |
 *
 * @returns undefined if it is none, or one without the segments that every libc has
 */
function imageAt(base: number, pageSize: number): Image | undefined {
  const header = new DataView(toArrayBuffer(base as Pointer, 0, pageSize));
  if (header.getUint32(0) !== 0x7f454c46) return undefined;
  const sizeofPhdr = 56;
  const phdrs: { type: number; start: number; fileEnd: number; end: number }[] = [];
  for (let index = 0; index < header.getUint16(56, true); index++) {
    const phdr = Number(header.getBigUint64(32, true)) + index * sizeofPhdr;
    if (phdr + sizeofPhdr > pageSize) return undefined;
    const start = base + Number(header.getBigUint64(phdr + 16, true));
    phdrs.push({
      type: header.getUint32(phdr, true),
      start,
      fileEnd: start + Number(header.getBigUint64(phdr + 32, true)),
      end: start + Number(header.getBigUint64(phdr + 40, true)),
    });
  }
  const last = phdrs.findLast(({ type }) => type === PT_LOAD);
  const dynamic = phdrs.find(({ type }) => type === PT_DYNAMIC);
  const relro = phdrs.find(({ type }) => type === PT_GNU_RELRO);
  if (!last || !dynamic || !relro) return undefined;
  return {
    start: base,
    end: last.end,
    relocated: { start: relro.start, end: dynamic.start },
    zero: { start: last.fileEnd, end: last.end },
  };
}

/** The pages that a range touches. */
const pagesOf = ({ start, end }: Range, pageSize: number): Range => ({
  start: Math.floor(start / pageSize) * pageSize,
  end: Math.ceil(end / pageSize) * pageSize,
});

/** What lies between ranges, within a range. */
export function gaps(within: Range, ranges: readonly Range[]): Range[] {
  const found: Range[] = [];
  let { start } = within;
  for (const range of ranges.toSorted((one, other) => one.start - other.start)) {
    if (range.start > start) found.push({ start, end: range.start });
    start = Math.max(start, range.end);
  }
  if (start < within.end) found.push({ start, end: within.end });
  return found;
}

const size = ({ start, end }: Range): number => end - start;

/** Where a resting pause can go on: steps that give the rest back, and the stack on which to take them. */
export interface Residence {
  readonly steps: Step[];
  readonly stack: Range;
}

/**
 * Finds what has to stay mapped.
 *
 * @param code the page of our routines
 * @returns undefined if the runtime must stay: another thread is running, or the memory map is not understood
 */
export function residence(code: Range): Residence | undefined {
  const stat = parseStat(readProc("/proc/self/stat") ?? "");
  const maps = parseMaps(readProc("/proc/self/maps") ?? "");
  // qemu-user says 0.
  if (stat === undefined || stat.threads > 1 || maps === undefined) return undefined;

  const pageSize = getpagesize();
  const pause_ = addressOf(pause);
  const libcPath = maps.find(({ start, end }) => start <= pause_ && pause_ < end)?.name;
  const libcBase = maps.find(({ name }) => name === libcPath)?.start;
  const stack = maps.find(({ start, end }) => start <= stat.startstack && stat.startstack < end);
  const [first, last] = [maps[0], maps.findLast(({ name }) => name !== "[vsyscall]")];
  if (libcBase === undefined || stack?.name !== "[stack]" || !first || !last) return undefined;
  const libc = imageAt(libcBase, pageSize);
  if (libc === undefined) return undefined;

  const pages = (start: number, end: number) => pagesOf({ start, end }, pageSize);
  const errno = Number(__errno_location());
  const thread = Number(pthread_self());
  const kept: Range[] = [
    code,
    pages(libc.start, libc.end),
    pages(errno, errno + 4),
    // struct pthread: what the kernel writes to (rseq, the thread's ID) and the header with the stack guard.
    pages(thread, thread + SIZEOF_PTHREAD),
    // It may have grown since.
    { start: stack.start - STACK_MARGIN, end: stack.end },
    // The kernel's own: arm64's signal trampoline lies in [vdso], and a probed libc function runs in [uprobes].
    ...maps.filter(({ name }) => name === "[vdso]" || name === "[uprobes]"),
  ];
  const unneeded = [
    { start: stack.start - STACK_MARGIN, end: pages(stat.startstack - DEEPEST_FRAME, stack.end).start },
    // .got is in the next page, or the second half of this one: keep it.
    { start: pages(libc.relocated.start, 0).start, end: pages(libc.relocated.end, 0).start },
    // Its first page is also the last of .data, and in the file that is not followed by zeros.
    { start: pages(0, libc.zero.start).end, end: pages(0, libc.zero.end).end },
  ];
  return {
    stack: { start: stack.start, end: Math.floor(stat.startstack / 16) * 16 },
    steps: [
      ...gaps({ start: first.start, end: last.end }, kept).map((range) =>
        call(munmap, range.start, size(range)),
      ),
      ...unneeded
        .filter((range) => size(range) > 0)
        .map((range) => call(madvise, range.start, size(range), MADV_DONTNEED)),
    ],
  };
}
