/**
 * A shared object that is loaded, as its program headers describe it (gABI, chapter 5; elf.h).
 */
import type { Range } from "./proc.ts";
import { uint } from "./structs.ts";

/** "\x7fELF", least significant byte first. */
const MAGIC = 0x464c457f;
const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_GNU_RELRO = 0x6474e552;

const SIZEOF_PHDR = 56;

/** Where a shared object lies, and the parts of it that a process can do without when it only calls functions. */
export interface SharedObject extends Range {
  /** What is written only while the object is relocated, and lies before .dynamic and .got (.data.rel.ro). */
  readonly relocated: Range;
  /** What is zero at first (.bss). */
  readonly zero: Range;
}

/**
 * Reads the first bytes of a loaded ELF object.
 *
 * | offset | size | of Elf64_Ehdr | | offset | size | of Elf64_Phdr |
 * | --- | --- | --- | --- | --- | --- | --- |
 * | 0 | 4 | e_ident, its magic number | | 0 | 4 | p_type |
 * | 32 | 8 | e_phoff | | 16 | 8 | p_vaddr |
 * | 56 | 2 | e_phnum | | 32 | 8 | p_filesz |
 * | | | | | 40 | 8 | p_memsz |
 *
 * @param header its first page, which holds the program headers too
 * @param base the address of that page
 * @returns undefined if it is none, or one without the segments that every libc has
 */
export function sharedObject(header: Uint8Array, base: number): SharedObject | undefined {
  if (uint(header, 0, 4) !== MAGIC) return undefined;
  const phoff = uint(header, 32, 8);
  const phdrsEnd = phoff + uint(header, 56, 2) * SIZEOF_PHDR;
  if (phdrsEnd > header.length) return undefined;
  let zero = 0;
  let end = 0;
  let dynamic = 0;
  let relro = 0;
  for (let phdr = phoff; phdr < phdrsEnd; phdr += SIZEOF_PHDR) {
    const type = uint(header, phdr, 4);
    const start = base + uint(header, phdr + 16, 8);
    if (type === PT_LOAD) {
      // In order of their addresses: the last one counts.
      zero = start + uint(header, phdr + 32, 8);
      end = start + uint(header, phdr + 40, 8);
    }
    if (type === PT_DYNAMIC) dynamic = start;
    if (type === PT_GNU_RELRO) relro = start;
  }
  if (end === 0 || dynamic < relro || relro === 0) return undefined;
  return { start: base, end, relocated: { start: relro, end: dynamic }, zero: { start: zero, end } };
}
