/**
 * The ELF file (gABI 4.1; elf.h): one segment that is read and executed, and the names of its routines.
 *
 * A static PIE without an interpreter: the kernel maps it beside the vDSO, which saves a page of page tables against an
 * address of our choice. Nothing in it is ever written, and it has no relocations.
 */
import type { Architecture } from "./architectures.ts";

const ET_DYN = 3;
const PT_LOAD = 1;
const PT_GNU_STACK = 0x6474e551;
const PF_X = 1;
const PF_W = 2;
const PF_R = 4;
const SHT_PROGBITS = 1;
const SHT_SYMTAB = 2;
const SHT_STRTAB = 3;
const SHF_ALLOC = 2;
const SHF_EXECINSTR = 4;
const STT_FUNC = 2;
const STT_OBJECT = 1;
const STB_GLOBAL = 1;

/** The sizes of a file header, a program header, a section header and a symbol, in bytes (Elf32_*, Elf64_*). */
const SIZES = {
  4: { ehdr: 52, phdr: 32, shdr: 40, symbol: 16 },
  8: { ehdr: 64, phdr: 56, shdr: 64, symbol: 24 },
} as const;

/** What a file is made of. */
export interface Contents {
  /** Machine code, then texts, as they are loaded behind the headers. */
  readonly code: Uint8Array;
  /** Where the texts begin, counted from the start of `code`. */
  readonly texts: number;
  /** Routines and texts: the address and size of each. The first is where the program begins. */
  readonly symbols: readonly { readonly name: string; readonly address: number; readonly size: number }[];
}

/** The address of the first byte behind the headers: the file is loaded as it is, from 0 on. */
export function sizeofHeaders({ encoder }: Architecture): number {
  const { ehdr, phdr } = SIZES[encoder.wordSize];
  return ehdr + 2 * phdr;
}

/** A file that is written from its start. */
class Writer {
  readonly bytes: number[] = [];
  readonly #architecture: Architecture;

  constructor(architecture: Architecture) {
    this.#architecture = architecture;
  }

  /** Integers of this size in bytes, in the byte order of the architecture. */
  integers(size: number, ...values: readonly number[]): void {
    for (const value of values) {
      const bytes = Array.from({ length: size }, (_, index) => Math.floor(value / 256 ** index) % 256);
      this.bytes.push(...(this.#architecture.isLittleEndian ? bytes : bytes.reverse()));
    }
  }

  /** Integers of the size of an address. */
  words(...values: readonly number[]): void {
    this.integers(this.#architecture.encoder.wordSize, ...values);
  }

  align(alignment: number): void {
    while (this.bytes.length % alignment !== 0) this.bytes.push(0);
  }
}

/**
 * Writes the file: headers, code and texts, and then, not loaded, symbols, their names and the section headers.
 */
export function elfFile(architecture: Architecture, { code, texts, symbols }: Contents): Uint8Array {
  const { machine, flags, isLittleEndian, pageSize, encoder } = architecture;
  const { wordSize } = encoder;
  const { ehdr, phdr, shdr, symbol } = SIZES[wordSize];
  const base = sizeofHeaders(architecture);
  const loaded = base + code.length;

  const SECTIONS = ["", ".text", ".rodata", ".symtab", ".strtab"] as const;
  const strings = [...SECTIONS, ...symbols.map(({ name }) => name)].map((name) => `${name}\0`).join("");
  // Each is a whole string: one that ends another would be found in it otherwise.
  const nameOf = (name: string) => (name === "" ? 0 : strings.indexOf(`\0${name}\0`) + 1);

  const symtab = new Writer(architecture);
  symtab.integers(1, ...Array<number>(symbol).fill(0));
  for (const { name, address, size } of symbols) {
    const isText = address >= base + texts;
    const info = (STB_GLOBAL << 4) | (isText ? STT_OBJECT : STT_FUNC);
    const section = isText ? 2 : 1;
    symtab.integers(4, nameOf(name));
    if (wordSize === 4) symtab.words(address, size);
    symtab.integers(1, info, 0);
    symtab.integers(2, section);
    if (wordSize === 8) symtab.words(address, size);
  }

  const symtabOffset = Math.ceil(loaded / wordSize) * wordSize;
  const strtabOffset = symtabOffset + symtab.bytes.length;
  const sectionsOffset = Math.ceil((strtabOffset + strings.length) / wordSize) * wordSize;
  const inMemory = (start: number, end: number) => ({ address: start, offset: start, size: end - start });
  // The fields of Elf32_Shdr and Elf64_Shdr.
  const plain = { type: 0, flags: 0, address: 0, link: 0, info: 0, alignment: 1, entrySize: 0 };
  const sections = [
    { ...plain, name: "", offset: 0, size: 0, alignment: 0 },
    {
      ...plain,
      ...inMemory(base, base + texts),
      name: ".text",
      type: SHT_PROGBITS,
      flags: SHF_ALLOC | SHF_EXECINSTR,
      alignment: encoder.alignment,
    },
    { ...plain, ...inMemory(base + texts, loaded), name: ".rodata", type: SHT_PROGBITS, flags: SHF_ALLOC },
    {
      ...plain,
      name: ".symtab",
      type: SHT_SYMTAB,
      offset: symtabOffset,
      size: symtab.bytes.length,
      link: 4,
      info: 1, // the first global symbol
      alignment: wordSize,
      entrySize: symbol,
    },
    { ...plain, name: ".strtab", type: SHT_STRTAB, offset: strtabOffset, size: strings.length },
  ];

  const file = new Writer(architecture);
  const bits = wordSize === 8 ? 2 : 1;
  file.integers(1, 0x7f, 0x45, 0x4c, 0x46, bits, isLittleEndian ? 1 : 2, 1, ...Array<number>(9).fill(0));
  file.integers(2, ET_DYN, machine);
  file.integers(4, 1);
  file.words(symbols[0]?.address ?? base, ehdr, sectionsOffset);
  file.integers(4, flags);
  file.integers(2, ehdr, phdr, 2, shdr, sections.length, sections.length - 1);
  for (const [type, permissions, size, alignment] of [
    [PT_LOAD, PF_R | PF_X, loaded, pageSize],
    [PT_GNU_STACK, PF_R | PF_W, 0, 16],
  ] as const) {
    file.integers(4, type);
    if (wordSize === 8) file.integers(4, permissions);
    file.words(0, 0, 0, size, size); // offset, addresses and sizes
    if (wordSize === 4) file.integers(4, permissions);
    file.words(alignment);
  }
  file.bytes.push(...code);
  file.align(wordSize);
  file.bytes.push(...symtab.bytes, ...new TextEncoder().encode(strings));
  file.align(wordSize);
  for (const { name, type, flags, address, offset, size, link, info, alignment, entrySize } of sections) {
    file.integers(4, nameOf(name), type);
    file.words(flags, address, offset, size);
    file.integers(4, link, info);
    file.words(alignment, entrySize);
  }
  return Uint8Array.from(file.bytes);
}
