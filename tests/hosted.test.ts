/**
 * What of the memory goes: maps in, ranges out. Every case is one that was seen, or that would end a pod.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import type { SharedObject } from "../ffi/hosted/elf.ts";
import { type Needs, outside, surplus } from "../ffi/hosted/memory.ts";
import { type Mapping, parseMaps, type Range } from "../ffi/hosted/proc.ts";

test("parseMaps reads what the kernel writes", () => {
  const text = readFileSync("/proc/self/maps", "utf8");
  const mappings = parseMaps(text) ?? [];
  expect(mappings.length).toBe(text.trimEnd().split("\n").length);
  expect(mappings.some(({ name }) => name === "[stack]")).toBe(true);
  expect(mappings.some(({ name }) => /\/libc[.-]/.test(name))).toBe(true);
});

test("parseMaps refuses what it does not understand", () => {
  const line = "1000-2000 r-xp 00000000 fe:00 338944                                     /lib/x.so\n";
  expect(parseMaps(line)).toEqual([{ start: 0x1000, end: 0x2000, permissions: "r-xp", name: "/lib/x.so" }]);
  for (const text of [
    "",
    "\n",
    "x\n",
    "2000-1000 r-xp 00000000 fe:00 1\n",
    `${line}${line}`,
    line.slice(0, 20),
    "1000 2000 r-xp\n",
  ])
    expect(parseMaps(text)).toBeUndefined();
});

test("outside is all but what is kept, and holes with it", () => {
  const range = (start: number, end: number) => ({ start, end });
  const mappings = [range(1, 5), range(5, 9), range(12, 20), range(30, 40), range(2 ** 40, 2 ** 40 + 1)];
  expect(outside(mappings, [range(38, 50), range(0, 6), range(14, 15), range(25, 26)])).toEqual([
    range(6, 14),
    range(15, 20),
    range(30, 38),
    range(2 ** 40, 2 ** 40 + 1),
  ]);
  expect(outside(mappings, [])).toEqual([range(1, 40), range(2 ** 40, 2 ** 40 + 1)]);
  expect(outside(mappings, [range(0, 2 ** 41)])).toEqual([]);
});

const contains = (ranges: readonly Range[], address: number) =>
  ranges.some(({ start, end }) => start <= address && address < end);

/** An address space as a start of Bun has it, in pages of this size from 0x10 on. */
function addressSpace(pageSize: number, extra: readonly [name: string, permissions: string][] = []) {
  const layout: readonly [name: string, permissions: string][] = [
    ["/pause", "r-xp"],
    ["[heap]", "rw-p"],
    ["", "rwxp"],
    ["/lib/libm.so.6", "r-xp"],
    ["/lib/libc.so.6", "r--p"],
    ["/lib/libc.so.6", "rw-p"],
    ["", "rw-p"],
    ["", "r-xp"],
    ...extra,
    ["/lib/ld.so", "rw-p"],
    ["[stack]", "rw-p"],
  ];
  const PAGES = 8;
  const maps: Mapping[] = layout.map(([name, permissions], index) => {
    // The stack has room to grow.
    const start = (0x10 + index * PAGES) * pageSize + (name === "[stack]" ? 2 ** 22 : 0);
    return { start, end: start + PAGES * pageSize, permissions, name };
  });
  const at = (name: string, occurrence = 0) => {
    const found = maps.filter((mapping) => mapping.name === name)[occurrence];
    if (found === undefined) throw new Error(name);
    return found;
  };
  const [headers, data] = [at("/lib/libc.so.6"), at("/lib/libc.so.6", 1)];
  const libc: SharedObject = {
    start: headers.start,
    end: data.end,
    relocated: { start: headers.end - pageSize - 16, end: headers.end - 16 },
    zero: { start: data.start + 16, end: data.end },
  };
  const block = at("", 1);
  const needs: Needs = {
    pageSize,
    stack: at("[stack]").end - 64,
    stackMapping: at("[stack]"),
    errno: block.start + pageSize - 8,
    thread: block.start + 3 * pageSize,
    rseq: { start: block.start + 6 * pageSize + 64, end: block.start + 6 * pageSize + 96 },
    stackGuard: undefined,
    libc,
    pages: [at("", 2)],
  };
  return { maps, needs, at };
}

for (const pageSize of [4096, 65536])
  describe(`pages of ${pageSize} bytes`, () => {
    test("only whole pages go, each of them mapped or in a hole", () => {
      const { maps, needs } = addressSpace(pageSize);
      const { unmapped, emptied } = surplus(maps, needs);
      expect(unmapped.length).toBeGreaterThan(2);
      for (const { start, end } of [...unmapped, ...emptied])
        expect([start % pageSize, end % pageSize, end > start]).toEqual([0, 0, true]);
    });

    test("what a resting thread needs stays: libc, errno, struct pthread, rseq's area, stack, our page", () => {
      const { maps, needs } = addressSpace(pageSize);
      const { unmapped } = surplus(maps, needs);
      const { errno, thread, rseq, stack, libc, pages } = needs;
      const needed = [
        errno,
        thread,
        thread + 2303,
        rseq?.start ?? 0,
        (rseq?.end ?? 0) - 1,
        stack,
        libc.start,
      ];
      for (const address of [...needed, libc.end - 1, pages[0]?.start ?? 0])
        expect([address, contains(unmapped, address)]).toEqual([address, false]);
      expect(unmapped.some(({ start, end }) => contains([{ start, end }], thread + 2 * pageSize))).toBe(true);
    });

    test("the executable, the heap, the JIT's memory and the loader go", () => {
      const { maps, needs, at } = addressSpace(pageSize);
      const { unmapped } = surplus(maps, needs);
      for (const mapping of [at("/pause"), at("[heap]"), at(""), at("/lib/libm.so.6"), at("/lib/ld.so")])
        expect([
          mapping.name,
          contains(unmapped, mapping.start),
          contains(unmapped, mapping.end - 1),
        ]).toEqual([mapping.name, true, true]);
    });
  });

const STAY = [
  ["[vvar]", "r--p"], // may be sealed (CONFIG_MSEAL_SYSTEM_MAPPINGS): a run that includes it would fail as a whole
  ["[vvar_vclock]", "r--p"],
  ["[vdso]", "r-xp"],
  ["[uprobes]", "--xp"],
  ["[usertrap]", "r-xp"], // gVisor's, where its system calls go
  ["", "r-xp"], // gVisor's vDSO, qemu's signal trampoline
  ["[something new]", "rw-p"],
] as const;

for (const [name, permissions] of STAY)
  test(`what is not known to be Bun's stays: "${name}" ${permissions}`, () => {
    const { maps, needs, at } = addressSpace(4096, [[name, permissions]]);
    const { start, end } = name === "" ? at("", 3) : at(name);
    const { unmapped } = surplus(maps, needs);
    for (let address = start; address < end; address += 4096) expect(contains(unmapped, address)).toBe(false);
    expect(contains(unmapped, at("/lib/ld.so").start)).toBe(true);
  });

test("without rseq's area, and with a stack guard in the loader", () => {
  const { maps, needs, at } = addressSpace(4096);
  const stackGuard = at("/lib/ld.so").start + 4096;
  const { unmapped } = surplus(maps, { ...needs, rseq: undefined, stackGuard });
  expect(contains(unmapped, stackGuard)).toBe(false);
  expect(contains(unmapped, stackGuard + 4096)).toBe(true);
  expect(contains(unmapped, needs.rseq?.start ?? 0)).toBe(true);
});
