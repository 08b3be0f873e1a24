/**
 * Random input, the same in every run. A failure names the seed of its case: with that one as SEED, it is the first.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { aarch64 } from "../ffi/aarch64.ts";
import { HOLE, type Mapping, parseMaps, parseStartstack, surplus } from "../ffi/memory.ts";
import { type Argument, assemble, type Call, type Encoder, type Range } from "../ffi/routine.ts";
import { x86_64 } from "../ffi/x86_64.ts";
import { outside } from "./helpers/pod.ts";
import { until } from "./helpers/process.ts";
import { compile, dist, type Program, programs } from "./helpers/programs.ts";
import { random } from "./helpers/random.ts";
import { isAtRest } from "./helpers/rest.ts";
import { CC, needs } from "./helpers/tools.ts";

const SEED = 20261124;

/** What one case draws from its seed. */
class Dice {
  readonly #next: () => number;

  constructor(seed: number) {
    this.#next = random(seed);
  }

  chance(probability: number): boolean {
    return this.#next() < probability;
  }

  int(least: number, most: number): number {
    return least + Math.floor(this.#next() * (most - least + 1));
  }

  /** An integer of this many bits, up to 53, of which the highest is set. */
  ofBits(count: number): number {
    if (count <= 0) return 0;
    const bits = this.int(0, 2 ** 21 - 1) * 2 ** 32 + this.int(0, 2 ** 32 - 1);
    return 2 ** (count - 1) + (bits % 2 ** (count - 1));
  }

  pick<T>(values: readonly T[]): T {
    return values[this.int(0, values.length - 1)] as T;
  }

  list<T>(least: number, most: number, make: () => T): T[] {
    return Array.from({ length: this.int(least, most) }, make);
  }

  /** Characters of one byte each. */
  text(most: number, least = 0, lowest = 0, highest = 255): string {
    return String.fromCharCode(...this.list(least, most, () => this.int(lowest, highest)));
  }
}

async function cases(count: number, run: (dice: Dice) => void | Promise<void>): Promise<void> {
  for (let seed = SEED; seed < SEED + count; seed++) {
    try {
      await run(new Dice(seed));
    } catch (error) {
      throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error });
    }
  }
}

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

test("parseStartstack reads every process's stat, and no number from a broken one", async () => {
  await cases(5000, (dice) => {
    const startstack = dice.chance(0.1) ? 0 : dice.ofBits(dice.int(1, 47));
    const fields = Array.from({ length: 49 }, () => String(dice.ofBits(dice.int(0, 53)) - dice.int(0, 1)));
    fields[28 - 4] = String(startstack);
    const name = dice.chance(0.5)
      ? dice.text(15)
      : dice.list(0, 15, () => dice.pick([..."() \n1S"])).join("");
    const text = `${dice.int(1, 2 ** 22)} (${name}) ${dice.pick([..."RSDZTtXI"])} ${fields.join(" ")}\n`;
    expect(parseStartstack(text), text).toBe(startstack === 0 ? undefined : startstack);
    const broken = mutated(dice, text);
    const found = parseStartstack(broken);
    if (found !== undefined) expect(found, broken).toBeGreaterThan(0);
  });
});

test("surplus is every page that is mapped and not kept, and the small holes between", async () => {
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
    const found = surplus(mapped.map(units), kept.map(units));
    expect(found, JSON.stringify({ mapped, kept })).toEqual(expected.map(units));
  });
});

/** Nearly an option that prints the version. "\xef\xbb\xbf" is a byte order mark, which some decoders drop. */
const NEAR_MISSES = "|v|-|-vv|--v|-v | -v|-\xff|-v\xff|\xff-v|-\xc0v|\xef\xbb\xbf-v".split("|");

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

/**
 * How many bits a function's address may have: with others, it may lie where the kernel maps something by itself
 * (47), where qemu does (39), or where the C program lies and its heap follows (23 to 31).
 */
const ADDRESS_BITS = [17, 18, 19, 20, 21, 22, 32, 33, 34, 35, 36, 37, 38, 40, 41, 42, 43, 44, 45, 46];

function someInteger(dice: Dice): number {
  const magnitude = dice.pick([
    () => dice.int(0, 300),
    () =>
      Math.min(2 ** dice.pick([dice.int(0, 53), 16, 31, 32, 48]) + dice.int(-1, 1), Number.MAX_SAFE_INTEGER),
    () => dice.ofBits(dice.int(0, 53)),
    // Halfwords that arm64's moves leave out.
    () => [32, 16, 0].reduce((sum, bit) => sum + dice.pick([0, 0xffff, dice.int(0, 0xffff)]) * 2 ** bit, 0),
  ])();
  return dice.chance(0.5) ? magnitude : -magnitude;
}

function someArgument(dice: Dice): Argument {
  if (dice.chance(0.7)) return someInteger(dice);
  if (dice.chance(0.2)) return null;
  // With six of them in each of eight calls the routine still fits its page.
  return new Uint8Array(dice.list(0, 48, () => dice.int(0, 255)));
}

/** What the C program prints where a routine works as its calls say. */
function expectedLog(errno: number, calls: readonly Call[], results: readonly number[]): string[] {
  const log = [hex(errno)];
  let next = 0;
  for (const { address, arguments: args, repeat } of calls) {
    const shown = args.map((value) =>
      value instanceof Uint8Array ? ` [${value.toHex()}]` : ` ${hex(value ?? 0)}`,
    );
    let result: number | undefined;
    do {
      log.push(hex(address) + shown.join(""));
      result = results[next++];
      if (result === undefined) return [...log, "no result left"];
    } while (repeat === "forever" || (repeat === "while positive" && result > 0));
  }
  return [...log, `returned, errno 12345678, beside it ${next > 0 ? "-1 -1" : "0 0"}`];
}

/** The C program's standard output, its parameters, and what was to be expected. */
function record(dice: Dice, encoder: Encoder, recorder: readonly string[]) {
  const pages = new Set<number>();
  while (pages.size < 10) pages.add(Math.floor(dice.ofBits(dice.pick(ADDRESS_BITS)) / PAGE) * PAGE);
  const [base = 0, ...functionPages] = pages;
  const [errno = 0, ...addresses] = functionPages.map((page) => page + dice.int(0, PAGE / 4 - 8) * 4);
  const calls = addresses.slice(dice.int(0, addresses.length)).map(
    (address): Call => ({
      address,
      arguments: dice.list(0, 6, () => someArgument(dice)),
      ...(dice.chance(0.5) ? {} : { repeat: dice.chance(0.8) ? "while positive" : "forever" }),
    }),
  );
  const results = dice.list(0, 40, () =>
    dice.pick([-(2 ** 31), -1, 0, 1, 2 ** 31 - 1, dice.int(1, 2 ** 31 - 1)]),
  );
  const page = new Uint8Array(PAGE);
  const entry = assemble(encoder, errno, calls, { view: new DataView(page.buffer), offset: 0 }, base);
  const parameters = [
    hex(base),
    hex(entry),
    // An int is the lower half of the register: what is in the upper half means nothing.
    results.map((int) => hex(dice.pick([0, 2 ** 32 - 1, dice.ofBits(32)])) + hex(int >>> 0, 8)).join(),
    hex(errno),
    ...calls.map(({ address, arguments: args }) =>
      [hex(address), ...args.map((value) => (value instanceof Uint8Array ? value.length : -1))].join(),
    ),
  ];
  const { stdout, stderr, signalCode } = Bun.spawnSync([...recorder, ...parameters], {
    stdin: page,
    // What goes astray may never end.
    timeout: 20_000,
    maxBuffer: 2 ** 20,
  });
  const log = stdout.toString().trimEnd().split("\n");
  return {
    log: [...log, `${stderr}`, signalCode],
    expected: [...expectedLog(errno, calls, results), "", undefined],
    parameters,
  };
}

const architectures = {
  "x86-64": { encoder: x86_64, count: 300, compiler: "cc", emulator: [], tools: CC },
  arm64: {
    encoder: aarch64,
    count: 60,
    compiler: "aarch64-linux-gnu-gcc",
    emulator: ["qemu-aarch64-static"],
    tools: {
      "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
      "qemu-aarch64-static": "qemu-user-static",
    },
  },
};

for (const [architecture, { encoder, count, compiler, emulator, tools }] of Object.entries(architectures)) {
  const { skip, name } = needs(tools);
  // The first is this machine's own.
  test.skipIf(skip || process.arch !== "x64")(
    name(`${architecture}: a routine makes its calls and keeps what it has to`),
    async () => {
      const recorder = [...emulator, compile("recorder", compiler, join(dist, `recorder-${architecture}`))];
      await cases(count, (dice) => {
        const { log, expected, parameters } = record(dice, encoder, recorder);
        expect(log, parameters.join(" ")).toEqual(expected);
      });
    },
  );
}
