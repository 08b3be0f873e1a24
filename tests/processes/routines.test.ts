/**
 * Random routines, run on the processor or an emulator of it, do what their steps say.
 */
import { dlopen } from "bun:ffi";
import { expect } from "bun:test";
import { join } from "node:path";
import { aarch64 } from "../../ffi/assembler/aarch64.ts";
import {
  type Address,
  assemble,
  type Condition,
  type FunctionEncoder,
  type Part,
  type Step,
  type Value,
  type Words,
} from "../../ffi/assembler/routine.ts";
import { x86_64 } from "../../ffi/assembler/x86_64.ts";
import { type Architecture, architectures, emulated } from "../helpers/architectures.ts";
import { cases, Dice } from "../helpers/dice.ts";
import { needing } from "../helpers/expect.ts";
import { compile, dist, architecture as own } from "../helpers/programs.ts";

const PAGE = 4096;
const hex = (value: number | bigint, digits = 0) =>
  BigInt.asUintN(64, BigInt(value)).toString(16).padStart(digits, "0");

/** Runs a command to its end. What goes astray may have none. */
const run = (command: string[], stdin: Uint8Array) =>
  Bun.spawnSync(command, { stdin, timeout: 20_000, maxBuffer: 2 ** 20 });

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

/*
 * Programs: a signal handler and a main, of system calls that harm nobody. qemu lists them with what is in the
 * registers, whether they take it or not. On the processor itself, what they write and how they end is seen.
 */

/** Whatever is passed, the first two return 0 and an error; umask returns what was passed to the one before. */
const NAMES = ["sched_yield", "lookup_dcookie", "umask", "write", "exit_group"] as const;
type Name = (typeof NAMES)[number];
const ENOSYS = 38;

/** Their numbers, in the same order. */
const NUMBERS: Record<string, readonly number[]> = {
  amd64: [24, 212, 95, 1, 231],
  arm: [158, 249, 60, 4, 248],
  arm64: [124, 18, 166, 64, 94],
  loong64: [124, 18, 166, 64, 94],
  ppc64le: [158, 235, 60, 4, 234],
  riscv64: [124, 18, 166, 64, 94],
  s390x: [158, 110, 60, 4, 248],
};

const callOf = ({ name }: Architecture, which: Name, ...values: Value[]): Step => ({
  systemCall: NUMBERS[name]?.[NAMES.indexOf(which)] ?? Number.NaN,
  values,
});

/** What is looked for among the arguments: letters, and what is beside them. */
const WANTED = ["v", "-v", "-V", "-\x01ab", "", "@[`{", "azAZ", "x".repeat(127)] as const;

const someWanted = (dice: Dice): string =>
  dice.chance(0.5) ? dice.pick(WANTED) : dice.text(6, 1, dice.pick([1, 0x40]), 127);

/** The same argument, or nearly: in other letters, with a bit flipped, or with one character more or less. */
function nearly(dice: Dice, text: string): string {
  const at = dice.int(0, text.length);
  const [before, behind] = [text.slice(0, at), text.slice(at + 1)];
  const flipped = (bits: number) => String.fromCharCode(text.charCodeAt(at) ^ bits);
  const result = dice.pick([
    () => text,
    () => text.toUpperCase(),
    () => text.toLowerCase(),
    () =>
      at < text.length ? before + flipped(dice.pick([0x20, 0x20, 0x80, 0xa0, 0x40, 0x01])) + behind : text,
    () => before + dice.text(1, 1, 1) + text.slice(at),
    () => before + behind,
  ])();
  return result.replaceAll("\0", "");
}

const { strcasecmp } = dlopen("libc.so.6", {
  strcasecmp: { args: ["buffer", "buffer"], returns: "i32" },
}).symbols;
const cString = (text: string) => Buffer.from(`${text}\0`, "latin1");

/** Whether an argument is wanted. Its own name, the first one, is none that is looked at. */
const hasArgument = (args: readonly string[], wanted: string) =>
  args.slice(1).some((arg) => strcasecmp(cString(arg), cString(wanted)) === 0);

/** The umasks that are set, and what results are compared with. */
const SMALL = [0, 1, 5, 127] as const;

type Texts = Readonly<Record<string, Uint8Array>>;

/** Steps in random order. Most of their jumps are to where they have not been yet. */
function someSteps(
  dice: Dice,
  architecture: Architecture,
  part: "handler" | "main",
  texts: Texts,
  wanted: readonly string[],
): Step[] {
  const { bits } = architecture;
  const call = (which: Name, ...values: Value[]) => callOf(architecture, which, ...values);
  const count = dice.int(1, 8);
  const somewhere = () => `${part}.${dice.int(0, count)}`;
  const integer = () => {
    const value = someInteger(dice);
    if (bits === 64) return value;
    return dice.chance(0.5) ? value | 0 : value >>> 0;
  };
  const word = (): number | Address =>
    dice.chance(0.2) ? { label: dice.pick(["handler", "main", ...Object.keys(texts)]) } : integer();
  const words = (): Words => ({ words: dice.list(1, 5, word) });
  const values = () => dice.list(0, 6, () => (dice.chance(0.2) ? words() : word()));
  const kinds: (() => Step)[] = [
    () => call(dice.pick(["sched_yield", "lookup_dcookie"]), ...values()),
    () => call("umask", dice.pick(SMALL)),
    () => {
      const [label, text] = dice.pick(Object.entries(texts));
      return call("write", 1, { label }, text.length);
    },
    () => {
      const value = words();
      return call("write", 1, value, (value.words.length * bits) / 8);
    },
    () => ({ jump: somewhere() }),
    () => ({ jump: somewhere(), when: dice.pick<Condition>(["positive", "negative", ...SMALL]) }),
  ];
  const look = (): Step => ({ jump: somewhere(), whenArgument: dice.pick(wanted) });
  if (part === "main") kinds.push(look, look);
  const steps: Step[] = [call("sched_yield")]; // so that the first jump has a result to depend on
  for (let index = 0; index < count; index++) steps.push({ label: `${part}.${index}` }, dice.pick(kinds)());
  const last: Step = part === "main" ? call("exit_group", dice.int(0, 255)) : { return: true };
  return [...steps, { label: `${part}.${count}` }, last];
}

interface Made {
  readonly name: Name;
  readonly values: readonly Value[];
  readonly result?: number;
}

/** The system calls that steps make, or undefined if there may be no end of them. */
function follow(
  steps: readonly Step[],
  { name: architecture }: Architecture,
  args: readonly string[],
  before: readonly Made[],
): Made[] | undefined {
  const made: Made[] = [];
  let result = 0;
  let next = 0;
  for (let count = 0; count < 200; count++) {
    const step = steps[next++];
    if (step === undefined || "return" in step) return made;
    if ("systemCall" in step) {
      const name = NAMES[NUMBERS[architecture]?.indexOf(step.systemCall) ?? -1];
      if (name === undefined) throw new Error(`${step.systemCall}`);
      const { values } = step;
      if (name === "exit_group") return [...made, { name, values }];
      const mask = [...before, ...made].findLast((call) => call.name === "umask")?.values[0] ?? 0;
      result = Number({ sched_yield: 0, lookup_dcookie: -ENOSYS, umask: mask, write: values[2] }[name]);
      made.push({ name, values, result });
    } else if ("jump" in step) {
      let holds = true;
      if ("whenArgument" in step) holds = hasArgument(args, step.whenArgument);
      else if (step.when === "positive") holds = result > 0;
      else if (step.when === "negative") holds = result < 0;
      else if (step.when !== undefined) holds = result === step.when;
      if (holds) next = steps.findIndex((other) => "label" in other && other.label === step.jump);
    }
  }
  return undefined;
}

type Labels = Readonly<Record<string, number>>;

const integerOf = (value: number | Address, labels: Labels): bigint =>
  BigInt(typeof value === "number" ? value : (labels[value.label] ?? Number.NaN));

/** The bytes of machine words. */
function bytesOf(
  { words }: Words,
  { bits, bigEndian = false }: Pick<Architecture, "bits" | "bigEndian">,
  labels: Labels = {},
): Uint8Array {
  const bytes = new DataView(new ArrayBuffer((words.length * bits) / 8));
  for (const [index, word] of words.entries()) {
    const value = BigInt.asUintN(bits, integerOf(word, labels));
    if (bits === 64) bytes.setBigUint64(index * 8, value, !bigEndian);
    else bytes.setUint32(index * 4, Number(value), !bigEndian);
  }
  return new Uint8Array(bytes.buffer);
}

/** Of write qemu lists only half of an address; what was there is in the output. */
const listedValues = (made: Made | undefined): readonly Value[] =>
  made === undefined || made.name === "write" ? [] : made.values;

/** The system calls in what qemu lists, each with the arguments that its steps name, and the stack pointers before. */
function listed(stderr: string, expected: readonly Made[], { bits, stack }: Architecture) {
  const stackPointers: bigint[] = [];
  const line = new RegExp(`^\\d+ (${NAMES.join("|")})\\((.*?)\\)(?: = (\\S+))?`, "gm");
  // The first is the runner's own umask.
  const [, ...lines] = stderr.replaceAll("-1 errno=", "-").matchAll(line);
  const calls = lines.map(([, name, args = "", result = ""], index) => {
    const shown = args.split(",");
    let onStack = 0;
    const values = listedValues(expected[index]).map((wanted, at) => {
      const [, sign, digits = ""] = /^(-?)(.*)$/.exec(shown[at] ?? "none") ?? [];
      const magnitude = BigInt(digits.replace(/^0(?=[0-7])/, "0o"));
      const value = BigInt.asUintN(bits, sign === "-" ? -magnitude : magnitude);
      if (typeof wanted === "number" || "label" in wanted) return hex(value);
      onStack += Math.ceil((wanted.words.length * bits) / 8 / stack) * stack;
      stackPointers.push(value + BigInt(onStack));
      return "stack";
    });
    return `${name}(${values}) ${result}`;
  });
  return { calls, stackPointers };
}

/** What is to be listed. */
const listing = (made: readonly Made[], labels: Labels, bits: number): string[] =>
  made.map((call) => {
    const values = listedValues(call).map((value) => {
      if (typeof value === "object" && "words" in value) return "stack";
      return hex(BigInt.asUintN(bits, integerOf(value, labels)));
    });
    return `${call.name}(${values}) ${call.result ?? ""}`;
  });

/** Addresses where neither the runner lies nor the kernel or qemu map something by themselves. */
const someBase = (dice: Dice, bits: number): number =>
  Math.floor(
    dice.ofBits(bits === 64 ? dice.pick([32, 33, 35, 36, 37, 38, 40, 42, 44, 46]) : dice.pick([28, 29, 30])) /
      PAGE,
  ) * PAGE;

/** What the runner is given to run parts at this address, among them "handler" and "main", with these arguments. */
function programOf(
  { encoder }: Architecture,
  runner: string,
  parts: readonly Part[],
  base: number,
  args: readonly string[],
) {
  const memory = new Uint8Array(16 * PAGE);
  const { labels, size } = assemble(encoder, parts, memory, base);
  const command = [
    ...[runner, hex(base), hex(labels.handler ?? 0), hex(labels.main ?? 0)],
    ...args.map((arg) => Buffer.from(arg, "latin1").toString("hex")),
  ];
  return { labels, command, stdin: memory.subarray(0, size) };
}

function runProgram(dice: Dice, architecture: Architecture, runner: string): void {
  const { name, bits, emulator } = architecture;
  const texts = Object.fromEntries(
    ["a", "b", "c"].map((label) => [label, new Uint8Array(dice.list(1, 20, () => dice.int(0, 255)))]),
  );
  const wanted = dice.list(1, 3, () => someWanted(dice));
  const args = dice.list(0, 5, () => nearly(dice, dice.pick(wanted)));
  const some = (part: "handler" | "main", before: readonly Made[]) => {
    for (;;) {
      const steps = someSteps(dice, architecture, part, texts, wanted);
      const made = follow(steps, architecture, part === "main" ? args : [], before);
      if (made !== undefined) return { steps, made };
    }
  };
  const handler = some("handler", []);
  const main = some("main", handler.made);
  const parts: Part[] = [
    ...Object.entries(texts).map(([label, data]) => ({ label, data, alignment: dice.pick([2, 4, 16]) })),
    { label: "main", steps: main.steps },
    { label: "handler", steps: handler.steps },
  ];
  // Code refers to what is before it and behind it.
  parts.push(...parts.splice(0, dice.int(0, 3)));
  const base = someBase(dice, bits);
  const { labels, command, stdin } = programOf(architecture, runner, parts, base, args);
  const made = [...handler.made, ...main.made];
  const written = made.map(({ name, values: [, what] }) => {
    if (name !== "write" || typeof what !== "object") return new Uint8Array();
    return "words" in what ? bytesOf(what, architecture, labels) : (texts[what.label] ?? new Uint8Array());
  });
  const said = command.join(" ");
  const expectEnd = ({ stdout, exitCode, signalCode }: ReturnType<typeof run>) =>
    expect([stdout.toString("hex"), exitCode, signalCode], said).toEqual([
      Buffer.concat(written).toString("hex"),
      Number(made.at(-1)?.values[0]),
      undefined,
    ]);

  const emulated = run([emulator(), "-strace", ...command], stdin);
  const { calls, stackPointers } = listed(`${emulated.stderr}`, made, architecture);
  expect(calls, said).toEqual(listing(made, labels, bits));
  expectEnd(emulated);
  // One of the handler's, and one of main's: what a call put on the stack is gone at the next one.
  expect(new Set(stackPointers).size, said).toBeLessThanOrEqual(2);
  if (name === own) expectEnd(run(command, stdin));
}

/** A program that looks for many texts and writes 1 for each that is among its arguments. */
function runSearch(
  architecture: Architecture,
  runner: string,
  wanted: readonly string[],
  args: readonly string[],
): void {
  const steps = wanted.flatMap((whenArgument, index): Step[] => [
    { jump: `yes.${index}`, whenArgument },
    callOf(architecture, "write", 1, { label: "no" }, 1),
    { jump: `next.${index}` },
    { label: `yes.${index}` },
    callOf(architecture, "write", 1, { label: "yes" }, 1),
    { label: `next.${index}` },
  ]);
  const parts: Part[] = [
    { label: "handler", steps: [{ return: true }] },
    { label: "main", steps: [...steps, callOf(architecture, "exit_group", 0)] },
    { label: "no", data: Buffer.from("0") },
    { label: "yes", data: Buffer.from("1") },
  ];
  const base = someBase(new Dice(0), architecture.bits);
  const { command, stdin } = programOf(architecture, runner, parts, base, args);
  const { stdout, exitCode } = run(emulated(architecture, ...command), stdin);
  const found = wanted.map((text) => Number(hasArgument(args, text))).join("");
  expect(`${stdout} ${exitCode}`, JSON.stringify({ wanted, args })).toBe(`${found} 0`);
}

for (const architecture of architectures) {
  const { name, compiler, needed } = architecture;
  const runs = needing(needed.run);
  const runner = () => compile("runner", compiler, join(dist, `runner-${name}`));
  runs.test(`${name}: a program makes its system calls, and jumps where it has to`, async () => {
    await cases(60, (dice) => runProgram(dice, architecture, runner()));
  });
  runs.test(`${name}: a program finds an argument that strcasecmp(3) finds`, async () => {
    await cases(60, (dice) => {
      const wanted = dice.list(12, 12, () => someWanted(dice));
      const args = dice.list(0, 8, () => nearly(dice, dice.pick(wanted)));
      runSearch(architecture, runner(), wanted, args);
    });
    // Every character of ASCII and every byte. What differs by the bit of the case is never there at once.
    const bytes = Array.from({ length: 255 }, (_, index) => String.fromCharCode(index + 1));
    for (let first = 0; first < bytes.length; first += 15)
      runSearch(architecture, runner(), bytes.slice(0, 127), ["", ...bytes.slice(first, first + 15)]);
  });
}

/*
 * C functions: what they call prints what is passed, and overwrites what a function may overwrite.
 */

/**
 * How many bits a function's address may have: with others, it may lie where the kernel maps something by itself
 * (47), where qemu does (39), or where the C program lies and its heap follows (23 to 31).
 */
const ADDRESS_BITS = [17, 18, 19, 20, 21, 22, 32, 33, 34, 35, 36, 37, 38, 40, 41, 42, 43, 44, 45, 46];

/** A call of a C function, as often as its result says. Data is passed by its address. */
interface Call {
  readonly address: number;
  readonly values: readonly (number | Uint8Array | Words)[];
  readonly repeat?: "while positive" | "forever";
}

function someArgument(dice: Dice): Call["values"][number] {
  if (dice.chance(0.7)) return someInteger(dice);
  if (dice.chance(0.2)) return { words: dice.list(1, 2, () => someInteger(dice)) };
  // With six of them in each of eight calls the routine still fits its page.
  return new Uint8Array(dice.list(1, 40, () => dice.int(0, 255)));
}

const dataOf = (value: Call["values"][number]): Uint8Array | undefined => {
  if (typeof value === "number") return undefined;
  return value instanceof Uint8Array ? value : bytesOf(value, { bits: 64 });
};

/** The function that makes these calls, and the data that they pass. */
function partsOf(errnoLocation: number, calls: readonly Call[]): Part[] {
  const data: Part[] = [];
  const steps = calls.flatMap(({ address, values, repeat }, index): Step[] => {
    const passed = values.map((value): Value => {
      if (!(value instanceof Uint8Array)) return value;
      const label = `data ${data.length}`;
      data.push({ label, data: value, alignment: 16 });
      return { label };
    });
    const again = `again ${index}`;
    const call: Step[] = [{ label: again }, { call: address, values: passed }];
    if (repeat === "forever") call.push({ jump: again });
    if (repeat === "while positive") call.push({ jump: again, when: "positive" });
    return call;
  });
  return [...data, { label: "main", steps: [{ begin: errnoLocation }, ...steps, { end: true }] }];
}

/** What the C program prints where a routine works as its calls say. */
function expectedLog(errno: number, calls: readonly Call[], results: readonly number[]): string[] {
  const log = [hex(errno)];
  let next = 0;
  for (const { address, values, repeat } of calls) {
    const shown = values.map((value) =>
      typeof value === "number" ? ` ${hex(value)}` : ` [${dataOf(value)?.toHex()}]`,
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

/** Runs a function that makes random calls. */
function runFunction(dice: Dice, encoder: FunctionEncoder, recorder: readonly string[]): void {
  const pages = new Set<number>();
  while (pages.size < 10) pages.add(Math.floor(dice.ofBits(dice.pick(ADDRESS_BITS)) / PAGE) * PAGE);
  const [base = 0, ...functionPages] = pages;
  const [errno = 0, ...addresses] = functionPages.map((page) => page + dice.int(0, PAGE / 4 - 8) * 4);
  const calls = addresses.slice(dice.int(0, addresses.length)).map(
    (address): Call => ({
      address,
      values: dice.list(0, 6, () => someArgument(dice)),
      ...(dice.chance(0.5) ? {} : { repeat: dice.chance(0.8) ? "while positive" : "forever" }),
    }),
  );
  const results = dice.list(0, 40, () =>
    dice.pick([-(2 ** 31), -1, 0, 1, 2 ** 31 - 1, dice.int(1, 2 ** 31 - 1)]),
  );
  const page = new Uint8Array(PAGE);
  const { labels } = assemble(encoder, partsOf(errno, calls), page, base);
  const parameters = [
    hex(base),
    hex((labels.main ?? 0) - base),
    // An int is the lower half of the register: what is in the upper half means nothing.
    results.map((int) => hex(dice.pick([0, 2 ** 32 - 1, dice.ofBits(32)])) + hex(int >>> 0, 8)).join(),
    hex(errno),
    ...calls.map(({ address, values }) =>
      [hex(address), ...values.map((value) => dataOf(value)?.length ?? -1)].join(),
    ),
  ];
  const { stdout, stderr, signalCode } = run([...recorder, ...parameters], page);
  const log = stdout.toString().trimEnd().split("\n");
  expect([...log, `${stderr}`, signalCode], parameters.join(" ")).toEqual([
    ...expectedLog(errno, calls, results),
    "",
    undefined,
  ]);
}

for (const architecture of architectures) {
  const { name, compiler, needed } = architecture;
  const encoder = { amd64: x86_64, arm64: aarch64 }[name];
  if (encoder === undefined) continue;
  needing(needed.run).test(`${name}: a C function makes its calls and keeps what it has to`, async () => {
    const recorder = compile("recorder", compiler, join(dist, `recorder-${name}`));
    const command = emulated(architecture, recorder);
    await cases(name === own ? 300 : 60, (dice) => runFunction(dice, encoder, command));
  });
}
