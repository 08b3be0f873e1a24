/**
 * What of the memory a resting pause needs, and what goes: maps in, ranges out.
 *
 * waitpid, pause, write and _exit need libc, the thread's own block (errno, and what the kernel and libc keep beside
 * it), a stack and the page of our routines. Of the rest, what is known to be Bun's or the loader's goes.
 */
import type { SharedObject } from "./elf.ts";
import type { Mapping, Range } from "./proc.ts";

/** sizeof(int). */
const SIZEOF_ERRNO = 4;

/** sizeof(uintptr_t). */
const SIZEOF_GUARD = 8;

/** How far the stack may grow after its size was read, in bytes. */
const STACK_MARGIN = 1 << 17;

/** More stack than our routines and the libc functions that they call use, in bytes. */
const DEEPEST_FRAME = 1024;

/**
 * A hole in the address space that is unmapped together with what lies around it, in bytes: what Bun mapped
 * since the map was read lies in such a hole.
 */
export const HOLE = 2 ** 30;

/** What a resting process needs. */
export interface Needs {
  /** In bytes. */
  readonly pageSize: number;
  /** The address of argc. */
  readonly stack: number;
  /** Where the stack is mapped. */
  readonly stackMapping: Range;
  /** The address of errno. */
  readonly errno: number;
  /** Where struct pthread lies. */
  readonly thread: Range;
  /** What the kernel writes when it preempts the thread or delivers a signal (rseq(2)), if that is registered. */
  readonly rseq: Range | undefined;
  /** The address of the stack guard, where that is a variable and not in the thread's block. */
  readonly stackGuard: number | undefined;
  readonly libc: SharedObject;
  /** Pages of ours. */
  readonly pages: readonly Range[];
}

/** What goes. All are whole pages. */
export interface Surplus {
  /** To be unmapped. */
  readonly unmapped: readonly Range[];
  /** To be emptied: it stays mapped, and is zero or what the file has when it is read again. */
  readonly emptied: readonly Range[];
}

/**
 * Whether it is known what a mapping is, and that nothing at rest needs it: files, the heap, and memory without a name
 * unless it is code that was made elsewhere. So [vvar], [vdso] and [uprobes] stay, which the kernel may have sealed or
 * is about to jump to; so do gVisor's [usertrap] and unnamed vDSO, and qemu's signal trampoline.
 */
function mayGo({ name, permissions }: Mapping): boolean {
  if (name.startsWith("/") || name === "[heap]") return true;
  const isCode = permissions[2] === "x" && permissions[1] !== "w";
  return (name === "" || name.startsWith("[anon:")) && !isCode;
}

/**
 * What of these mappings goes.
 *
 * @param maps in order of their addresses
 */
export function surplus(maps: readonly Mapping[], needs: Needs): Surplus {
  const { pageSize, libc, errno, thread, rseq, stack, stackMapping, stackGuard } = needs;
  const down = (address: number) => address - (address % pageSize);
  const up = (address: number) => down(address + pageSize - 1);
  const pages = (start: number, end: number) => ({ start: down(start), end: up(end) });

  const kept: Range[] = [
    ...needs.pages,
    { start: stackMapping.start - STACK_MARGIN, end: stackMapping.end },
    pages(libc.start, libc.end),
    pages(errno, errno + SIZEOF_ERRNO),
    pages(thread.start, thread.end),
  ];
  for (const mapping of maps) if (!mayGo(mapping)) kept.push(mapping);
  if (rseq !== undefined) kept.push(pages(rseq.start, rseq.end));
  // arm64's glibc has the stack guard of all its functions in the loader.
  if (stackGuard !== undefined) kept.push(pages(stackGuard, stackGuard + SIZEOF_GUARD));

  const emptied: Range[] = [];
  for (const range of [
    { start: stackMapping.start, end: down(stack - DEEPEST_FRAME) },
    // The page of .got, which comes after it, stays.
    { start: down(libc.relocated.start), end: down(libc.relocated.end) },
    // So does the last page of .data: its end is zero in memory, but not in the file.
    { start: up(libc.zero.start), end: up(libc.zero.end) },
  ])
    if (range.start < range.end) emptied.push(range);
  return { unmapped: outside(maps, kept), emptied };
}

/**
 * What of these mappings is outside of the ranges to keep, with the holes between.
 *
 * @param mappings in order of their addresses
 * @param kept whole pages, in any order
 */
export function outside(mappings: readonly Range[], kept: readonly Range[]): Range[] {
  const found: Range[] = [];
  const ordered = inOrder(kept);
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

/** Ranges in order of their addresses. */
function inOrder(ranges: readonly Range[]): readonly Range[] {
  const ordered: Range[] = [];
  for (const range of ranges) {
    ordered.push(range);
    for (let at = ordered.length - 1; at > 0; at--) {
      const before = ordered[at - 1];
      if (before === undefined || before.start <= range.start) break;
      ordered[at] = before;
      ordered[at - 1] = range;
    }
  }
  return ordered;
}
