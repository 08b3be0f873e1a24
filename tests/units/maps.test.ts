/**
 * What of the hosted build's memory goes: /proc/self/maps in, ranges out. Every case is one that was seen, or that would
 * end a pod; and random ones, the same in every run.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import type { SharedObject } from "../../ffi/hosted/elf.ts";
import { HOLE, type Needs, outside, surplus } from "../../ffi/hosted/memory.ts";
import { type Mapping, parseMaps, type Range } from "../../ffi/hosted/proc.ts";
import { cases, type Dice } from "../helpers/dice.ts";

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
    thread: { start: block.start + 3 * pageSize, end: block.start + 3 * pageSize + 2368 },
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

    test("what is emptied: the stack that was used, libc's relocated constants but for .got, and its zeros", () => {
      const { maps, needs } = addressSpace(pageSize);
      const inPages = surplus(maps, needs).emptied.map(({ start, end }) => [
        start / pageSize,
        end / pageSize,
      ]);
      const grown = 2 ** 22 / pageSize;
      expect(inPages).toEqual([
        [0x58 + grown, 0x5f + grown],
        [0x36, 0x37],
        [0x39, 0x40],
      ]);
    });

    test("what a resting thread needs stays: libc, errno, struct pthread, rseq's area, stack, our page", () => {
      const { maps, needs } = addressSpace(pageSize);
      const { unmapped } = surplus(maps, needs);
      const { errno, thread, rseq, stack, libc, pages } = needs;
      const ofThread = [errno, thread.start, thread.end - 1, rseq?.start ?? 0, (rseq?.end ?? 0) - 1];
      const needed = [...ofThread, stack, libc.start, libc.end - 1, pages[0]?.start ?? 0];
      expect(needed.filter((address) => contains(unmapped, address))).toEqual([]);
      expect(contains(unmapped, thread.start + pageSize)).toBe(true);
    });

    test("the executable, the heap, the JIT's memory and the loader go", () => {
      const { maps, needs, at } = addressSpace(pageSize);
      const { unmapped } = surplus(maps, needs);
      const left = ["/pause", "[heap]", "", "/lib/libm.so.6", "/lib/ld.so"]
        .map((name) => at(name))
        .filter(({ start, end }) => !contains(unmapped, start) || !contains(unmapped, end - 1));
      expect(left).toEqual([]);
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

const PAGE = 4096;
const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");

/** A line as the kernel writes it (fs/proc/task_mmu.c, show_vma_header_prefix). Only a file has a place on a disk. */
function line(dice: Dice, { start, end, permissions, name }: Mapping): string {
  let place = "00000000 00:00 0";
  if (name.startsWith("/")) {
    const [offset, major, minor] = [32, 12, 20].map((bits) => hex(dice.ofBits(dice.int(0, bits)), 2));
    const inode = dice.chance(0.1) ? 2n ** 64n - 1n : dice.ofBits(dice.int(0, 53));
    place = `${offset?.padStart(8, "0")} ${major}:${minor} ${inode}`;
  }
  const fields = `${hex(start, 8)}-${hex(end, 8)} ${permissions} ${place} `;
  return name === "" ? `${fields}\n` : `${fields.padEnd(72)} ${name}\n`;
}

const NAMES = [
  "[stack]",
  "[vdso]",
  "[heap]",
  "[anon:a - b]",
  "/memfd:x (deleted)",
  "/a  b-c\\012 0-1 ",
  "/é\u2028",
];

function someMappings(dice: Dice): Mapping[] {
  const mappings: Mapping[] = [];
  let start = dice.ofBits(dice.int(0, 35)) * PAGE;
  for (let count = dice.int(1, 60); count > 0; count--) {
    const end = start + dice.ofBits(dice.int(1, 33)) * PAGE;
    if (end > 2 ** 47) break;
    const permissions = ["r-", "w-", "x-", "sp"].map((letters) => dice.pick([...letters])).join("");
    const name = dice.pick(["", "", dice.pick(NAMES), `/${dice.text(100, 0, 32, 126)}`]);
    mappings.push({ start, end, permissions, name });
    start = end + dice.ofBits(dice.int(0, 33)) * PAGE;
  }
  if (dice.chance(0.5) || mappings.length === 0) {
    const end = 2 ** 64 - 10 * 2 ** 20 + PAGE;
    mappings.push({ start: end - PAGE, end, permissions: "--xp", name: "[vsyscall]" });
  }
  return mappings;
}

/** Breaks a text, in most cases in one place. */
function mutated(dice: Dice, text: string): string {
  const lines = text.split(/(?<=\n)/);
  const index = dice.int(0, lines.length - 1);
  const at = dice.int(0, text.length);
  const result = dice.pick([
    () => text.slice(0, at) + dice.text(1, 1) + text.slice(at + 1),
    () => text.slice(0, at) + text.slice(at + dice.int(1, 80)),
    () => text.slice(0, at) + dice.pick([dice.text(9), ..." -\n0f)(", "\n\n", "-1"]) + text.slice(at),
    () => text.slice(0, at),
    () => text.slice(at),
    () => lines.toSpliced(index, 0, lines[index] ?? "").join(""),
    () => lines.toSpliced(index, 1, (lines[index] ?? "").slice(0, dice.int(0, 30))).join(""),
    () => lines.toSpliced(index, 2, ...lines.slice(index, index + 2).reverse()).join(""),
  ])();
  return dice.chance(0.3) ? mutated(dice, result) : result;
}

test("parseMaps reads every list of mappings", async () => {
  await cases(1000, (dice) => {
    const mappings = someMappings(dice);
    expect(parseMaps(mappings.map((mapping) => line(dice, mapping)).join(""))).toEqual(mappings);
  });
});

test("parseMaps refuses what is broken, or finds ranges in order, one a line", async () => {
  let understood = 0;
  await cases(5000, (dice) => {
    const mappings = someMappings(dice).slice(0, dice.int(1, 8));
    const text = mutated(dice, mappings.map((mapping) => line(dice, mapping)).join(""));
    const found = parseMaps(text);
    if (found === undefined) return;
    understood++;
    expect(text.split("\n").length - 1, text).toBe(found.length);
    expect(text, text).toEndWith("\n");
    let previous = 0;
    for (const { start, end } of found) {
      expect(start, text).toBeGreaterThanOrEqual(previous);
      expect(end, text).toBeGreaterThan(start);
      previous = end;
    }
  });
  // Else hardly anything was looked at.
  expect(understood).toBeGreaterThan(1000);
});

test("outside is every page that is mapped and not kept, and the small holes between", async () => {
  const LARGE_HOLE = 8;
  const UNIT = HOLE / LARGE_HOLE;
  const END = 64;
  await cases(10_000, (dice) => {
    const mapped: Range[] = [];
    for (let start = dice.int(0, 9); start < END; ) {
      const end = start + dice.int(1, 9);
      mapped.push({ start, end });
      start = end + dice.pick([0, 0, dice.int(0, 3), dice.int(0, 12)]);
    }
    const kept = dice.list(0, 6, () => {
      const start = dice.int(0, END);
      return { start, end: start + dice.int(1, dice.pick([1, 3, 20])) };
    });
    const expected: Range[] = [];
    let run: { start: number; end: number } | undefined;
    for (let page = 0; page < END + 10; page++) {
      if (contains(kept, page)) run = undefined;
      else if (contains(mapped, page)) {
        if (run !== undefined && page - run.end < LARGE_HOLE) run.end = page + 1;
        else {
          run = { start: page, end: page + 1 };
          expected.push(run);
        }
      }
    }
    const units = ({ start, end }: Range): Range => ({ start: start * UNIT, end: end * UNIT });
    const found = outside(mapped.map(units), kept.map(units));
    expect(found, JSON.stringify({ mapped, kept })).toEqual(expected.map(units));
  });
});
