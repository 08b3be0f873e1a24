/**
 * Memory for machine code: written first and executable after, never both.
 */
import { type Pointer, toArrayBuffer } from "bun:ffi";
import { NULL } from "../constants.ts";
import {
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

/** What is mapped, in bytes, if a page is not larger. The hole beside libc has room for it: further away it takes page tables. */
const SIZEOF_PAGE = 1 << 14;

/**
 * Maps fresh pages.
 *
 * Fresh, because the kernel makes arm64's instruction cache coherent when a page first becomes executable
 * (arch/arm64/mm/flush.c, __sync_icache_dcache). What is not written costs nothing; but all that JavaScript can see, its
 * heap counts.
 *
 * @throws {Error} if the kernel gives none.
 */
export function mapPage(libc: LibcFunctions): Page {
  const pageSize = libc.getpagesize();
  const size = pageSize > SIZEOF_PAGE ? pageSize : SIZEOF_PAGE;
  const start = Number(libc.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
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
