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

/** What is mapped, and what of it is written, in bytes. The first is a multiple of every size of a page. */
const SIZEOF_MAPPING = 1 << 16;
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
  const permissions = PROT_READ | PROT_WRITE;
  const start = Number(libc.mmap(NULL, SIZEOF_MAPPING, permissions, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (start === MAP_FAILED) throw new Error("no memory for the signal handlers");
  return {
    start,
    end: start + SIZEOF_MAPPING,
    memory: new Uint8Array(toArrayBuffer(start as Pointer, 0, SIZEOF_PAGE)),
    used: 0,
    seal() {
      if (libc.mprotect(start as Pointer, SIZEOF_MAPPING, PROT_READ | PROT_EXEC) < 0)
        throw new Error("no executable memory for the signal handlers");
    },
  };
}
