/**
 * What of this process's memory a resting pause needs, and how the rest of it is given back.
 *
 * waitpid, pause, write and _exit need libc, the thread's own block (errno, and what the kernel and libc keep
 * beside it), a stack and the page of our routines. Everything else is Bun's.
 */
import { type Pointer, toArrayBuffer } from "bun:ffi";
import {
  __errno_location,
  __stack_chk_guard,
  addressOf,
  close,
  cString,
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
import { type Call, call, type Range, uint64 } from "./routine.ts";

/** More than glibc's struct pthread has on any architecture, in bytes (2304 on x86-64, glibc 2.36). */
const SIZEOF_PTHREAD = 4096;

/** How far the stack may have grown since its size was read, in bytes. */
const STACK_MARGIN = 1 << 17;

/** More stack than our routines and the libc functions that they call use, in bytes. */
const DEEPEST_FRAME = 1024;

/**
 * A hole in the address space that is unmapped together with what lies around it, in bytes: what Bun mapped
 * since the map was read lies in such a hole.
 */
export const HOLE = 2 ** 30;

/** The size of a file of /proc that is still believed, in bytes: a start has about 60 mappings of 100 bytes. */
const MOST = 1 << 14;

// elf.h
const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_GNU_RELRO = 0x6474e552;

/** A file of /proc, as text; "" if it cannot be read, or is longer than anything expected. */
function readProc(path: string): string {
  const fd = open(cString(path), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  const bytes = new Uint8Array(MOST);
  let length = 0;
  let more: number;
  do {
    more = Number(read(fd, bytes.subarray(length), MOST - length));
    length += more;
  } while (more > 0);
  close(fd);
  return more < 0 || length === MOST ? "" : new TextDecoder().decode(bytes.subarray(0, length));
}

/** A line of /proc/PID/maps: addresses, "rwxp" or some of it, and a path, a name in brackets, or "". */
export interface Mapping extends Range {
  readonly permissions: string;
  readonly name: string;
}

/**
 * The lines of /proc/PID/maps, in order of their addresses (proc_pid_maps(5)): "start-end perms offset dev inode",
 * and behind that, from column 73 on, the name if there is one.
 *
 * @returns undefined if there is none, or one that is not like that
 */
export function parseMaps(text: string): Mapping[] | undefined {
  const mappings: Mapping[] = [];
  let previous = 0;
  for (let from = 0; from < text.length; ) {
    const newline = text.indexOf("\n", from);
    const dash = text.indexOf("-", from);
    const space = text.indexOf(" ", dash);
    const start = Number(`0x${text.slice(from, dash)}`);
    const end = Number(`0x${text.slice(dash + 1, space)}`);
    if (!(start >= previous && end > start && newline > space)) return undefined;
    const permissions = text.slice(space + 1, space + 5);
    mappings.push({ start, end, permissions, name: text.slice(from + 73, newline) });
    previous = end;
    from = newline + 1;
  }
  return mappings.length > 0 ? mappings : undefined;
}

/** The address of argc, where the stack began (proc_pid_stat(5), field 28); undefined if it is not to be found. */
export function parseStartstack(text: string): number | undefined {
  // The second field is a name in parentheses, which may itself contain anything.
  const startstack = Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[28 - 3]);
  return startstack > 0 ? startstack : undefined;
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
  const phoff = uint64(header, 32);
  const phdrsEnd = phoff + header.getUint16(56, true) * sizeofPhdr;
  if (phdrsEnd > pageSize) return undefined;
  let zero = 0;
  let end = 0;
  let dynamic = 0;
  let relro = 0;
  for (let phdr = phoff; phdr < phdrsEnd; phdr += sizeofPhdr) {
    const type = header.getUint32(phdr, true);
    const start = base + uint64(header, phdr + 16);
    if (type === PT_LOAD) {
      // In order of their addresses: the last one counts.
      zero = start + uint64(header, phdr + 32);
      end = start + uint64(header, phdr + 40);
    }
    if (type === PT_DYNAMIC) dynamic = start;
    if (type === PT_GNU_RELRO) relro = start;
  }
  if (end === 0 || dynamic < relro || relro === 0) return undefined;
  return { start: base, end, relocated: { start: relro, end: dynamic }, zero: { start: zero, end } };
}

/**
 * What of these mappings is outside of the ranges to keep, with the holes between.
 *
 * @param mappings in order of their addresses
 * @param kept whole pages, in any order
 */
export function surplus(mappings: readonly Range[], kept: readonly Range[]): Range[] {
  const found: Range[] = [];
  const ordered: Range[] = [];
  for (const range of kept) {
    let at = ordered.length;
    while (at > 0 && range.start < (ordered[at - 1]?.start ?? 0)) at--;
    ordered.splice(at, 0, range);
  }
  let next = 0;
  let run: { start: number; end: number } | undefined;
  for (const mapping of mappings) {
    let { start } = mapping;
    while (start < mapping.end) {
      const range = ordered[next];
      if (range !== undefined && range.end <= start) {
        run = undefined;
        next++;
      } else if (range !== undefined && range.start <= start) {
        start = range.end;
      } else {
        const end = range !== undefined && range.start < mapping.end ? range.start : mapping.end;
        if (run !== undefined && start - run.end < HOLE) {
          run.end = end;
        } else {
          run = { start, end };
          found.push(run);
        }
        start = end;
      }
    }
  }
  return found;
}

/** Where a resting pause lives: the calls that give all else back, and the stack on which to make them. */
export interface Residence {
  readonly calls: readonly Call[];
  readonly stack: Range;
}

/**
 * Finds what has to stay mapped.
 *
 * @param code the page of our routines
 * @returns undefined if the memory map is not understood
 */
export function residence(code: Range): Residence | undefined {
  const startstack = parseStartstack(readProc("/proc/self/stat"));
  const maps = parseMaps(readProc("/proc/self/maps"));
  if (startstack === undefined || maps === undefined) return undefined;

  const pageSize = getpagesize();
  const down = (address: number) => address - (address % pageSize);
  const up = (address: number) => down(address + pageSize - 1);
  const function_ = addressOf(pause);
  const errno = Number(__errno_location());
  const thread = Number(pthread_self());
  const kept: Range[] = [
    code,
    { start: down(errno), end: up(errno + 4) },
    // struct pthread: what the kernel writes to (rseq, the thread's ID) and the header with the stack guard.
    { start: down(thread), end: up(thread + SIZEOF_PTHREAD) },
  ];
  // arm64's glibc has the stack guard of all its functions in the loader.
  if (__stack_chk_guard !== undefined)
    kept.push({ start: down(__stack_chk_guard), end: up(__stack_chk_guard + 8) });
  let stack: Mapping | undefined;
  let libcPath: string | undefined;
  for (const mapping of maps) {
    if (mapping.start <= startstack && startstack < mapping.end) stack = mapping;
    if (mapping.start <= function_ && function_ < mapping.end) libcPath = mapping.name;
    const { name, permissions } = mapping;
    // The kernel's own: arm64's signal trampoline lies in [vdso], and a probed libc function runs in [uprobes].
    if (name === "[vdso]" || name === "[uprobes]" || name === "[vsyscall]") kept.push(mapping);
    // qemu-user's signal trampoline.
    if (name === "" && permissions === "r-xp") kept.push(mapping);
  }
  let libc: Image | undefined;
  for (const { start, name } of maps) if (name === libcPath) libc ??= imageAt(start, pageSize);
  if (libc === undefined || stack === undefined) return undefined;
  const lowest = stack.start - STACK_MARGIN;
  kept.push({ start: libc.start, end: up(libc.end) }, { start: lowest, end: stack.end });

  const calls: Call[] = [];
  for (const { start, end } of surplus(maps, kept)) calls.push(call(munmap, start, end - start));
  const unneeded: Range[] = [
    { start: lowest, end: down(startstack - DEEPEST_FRAME) },
    // The page of .got, which comes after it, stays.
    { start: down(libc.relocated.start), end: down(libc.relocated.end) },
    // So does the last page of .data: its end is zero in memory, but not in the file.
    { start: up(libc.zero.start), end: up(libc.zero.end) },
  ];
  for (const { start, end } of unneeded)
    if (start < end) calls.push(call(madvise, start, end - start, MADV_DONTNEED));
  return { calls, stack: { start: stack.start, end: startstack - (startstack % 16) } };
}
