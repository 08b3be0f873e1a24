/**
 * Memory for machine code: written first and executable after, never both.
 */
import { type Pointer, toArrayBuffer } from "bun:ffi";
import {
  addressOf,
  type LibcFunctions,
  MAP_ANONYMOUS,
  MAP_FAILED,
  MAP_PRIVATE,
  PROT_EXEC,
  PROT_READ,
  PROT_WRITE,
} from "./libc.ts";
import type { Range } from "./proc.ts";

/** Pages that can be written, until they are sealed. */
export interface Page extends Range {
  readonly memory: Uint8Array;
  /** Bytes that are written so far. */
  used: number;
  /** Makes them executable, and no longer writable. Throws if the kernel refuses. */
  seal(): void;
}

/** What is mapped, in bytes, if a page is not larger. */
const SIZEOF_PAGE = 1 << 14;

/** More than the loader has behind `__libc_stack_end`, in pages. */
const BEHIND_LOADER = 8;

/**
 * Where nothing is mapped, and libc is near: the kernel maps the loader first, and all else below it. Where libc is not
 * near, the page takes page tables of its own. The address that the kernel would choose is 1 GiB below libc, under the
 * JIT's memory, unless the loader has left a hole where ld.so.cache was; there is none in an image from scratch.
 */
export const besideLibc = (libc: LibcFunctions): number =>
  addressOf(libc.__libc_stack_end) + BEHIND_LOADER * libc.getpagesize();

/**
 * Maps fresh pages.
 *
 * Fresh, because the kernel makes arm64's instruction cache coherent when a page first becomes executable
 * (arch/arm64/mm/flush.c, __sync_icache_dcache). What is not written costs nothing; but all that JavaScript can see, its
 * heap counts.
 *
 * @param hint where, if nothing is mapped there
 * @throws {Error} if the kernel gives none.
 */
export function mapPage(libc: LibcFunctions, hint: number): Page {
  const pageSize = libc.getpagesize();
  const size = pageSize > SIZEOF_PAGE ? pageSize : SIZEOF_PAGE;
  const start = Number(
    libc.mmap(hint as Pointer, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
  );
  if (start === MAP_FAILED) throw new Error("no memory for the signal handlers");
  return {
    start,
    end: start + size,
    memory: new Uint8Array(toArrayBuffer(start as Pointer, 0, SIZEOF_PAGE)),
    used: 0,
    seal() {
      if (libc.mprotect(start as Pointer, size, PROT_READ | PROT_EXEC) < 0)
        throw new Error("no executable memory for the signal handlers");
    },
  };
}
