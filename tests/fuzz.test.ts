/**
 * Random input for what reads /proc and arguments, the same in every run.
 */
import { expect, test } from "bun:test";
import { HOLE, outside as outsideOf } from "../ffi/hosted/memory.ts";
import { type Mapping, parseMaps, type Range } from "../ffi/hosted/proc.ts";
import { cases, type Dice } from "./helpers/dice.ts";
import { outside } from "./helpers/pod.ts";
import { until } from "./helpers/process.ts";
import { type Program, programs } from "./helpers/programs.ts";
import { isAtRest } from "./helpers/rest.ts";
import { CC, needs } from "./helpers/tools.ts";

const PAGE = 4096;
const hex = (value: number, digits = 0) =>
  BigInt.asUintN(64, BigInt(value)).toString(16).padStart(digits, "0");

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
  const has = (ranges: readonly Range[], page: number) =>
    ranges.some(({ start, end }) => start <= page && page < end);
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
      if (has(kept, page)) run = undefined;
      else if (has(mapped, page)) {
        if (run !== undefined && page - run.end < LARGE_HOLE) run.end = page + 1;
        else {
          run = { start: page, end: page + 1 };
          expected.push(run);
        }
      }
    }
    const units = ({ start, end }: Range): Range => ({ start: start * UNIT, end: end * UNIT });
    const found = outsideOf(mapped.map(units), kept.map(units));
    expect(found, JSON.stringify({ mapped, kept })).toEqual(expected.map(units));
  });
});

/** Nearly an option that prints the version. "\xef\xbb\xbf" is a byte order mark, which some decoders drop. */
const NEAR_MISSES =
  "|v|-|-vv|--v|-v | -v|-\xff|-v\xff|\xff-v|-\xc0v|\xef\xbb\xbf-v|\rv|\rV|-\x16|-6|-\xd6|-\xf6|\xadv".split(
    "|",
  );

/** Runs a program with arguments of any bytes, which only a shell can pass, until it ends by itself or rests. */
async function ending(program: Program, args: readonly string[]) {
  const quoted = args.map(
    (arg) => `$'${[...arg].map((byte) => `\\x${hex(byte.charCodeAt(0), 2)}`).join("")}'`,
  );
  const command = ["bash", "-c", `exec "$0" ${quoted.join(" ")}`, program.executable];
  await using child = outside(command);
  const ended = () => child.exitCode !== null || child.signalCode !== null;
  await until("an end or rest", () => ended() || isAtRest(child.pid, program), child);
  child.kill("SIGTERM");
  const stdout = await new Response(child.stdout).text();
  const stderr = await new Response(child.stderr).text();
  return { stdout, stderr, exitCode: await child.exited };
}

const c = needs({ ...CC, bash: "bash" });

test.skipIf(c.skip)(c.name("only -v and -V are arguments that matter, as for the reference"), async () => {
  await cases(60, async (dice) => {
    const args = dice.list(0, 8, () =>
      dice.pick([dice.pick(NEAR_MISSES), dice.text(dice.pick([3, 40]), 0, 1)]),
    );
    if (dice.chance(0.3)) args.splice(dice.int(0, args.length), 0, dice.pick(["-v", "-V"]));
    const prints = args.includes("-v") || args.includes("-V");
    const stderr = "Warning: pause should be the first process\nShutting down, got signal: Terminated\n";
    const endings = await Promise.all(programs.map((program) => ending(program, args)));
    expect(endings, JSON.stringify(args)).toEqual(
      programs.map((program) => ({
        stdout: prints ? program.version : "",
        stderr: prints ? "" : stderr,
        exitCode: 0,
      })),
    );
  });
});
