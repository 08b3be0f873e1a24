/**
 * npm run footprint: what both builds cost beside the C program, and what is left of them in memory.
 */
import { basename } from "node:path";
import { freestanding, hosted, type Program } from "../tests/helpers/programs.ts";
import { untilAtRest } from "../tests/helpers/rest.ts";
import { missing } from "../tests/helpers/tools.ts";
import { costOf, endProgress, mapOf, median, type Part, progress, untilExit, untilReady } from "./measure.ts";
import { emptyScript, glibc, isFreestanding, isHosted, musl } from "./peers.ts";
import { Command } from "./spawn.ts";
import { STANDARD } from "./table.ts";

const INSTANCES = 100;
const MEMORY_ROUNDS = 5;
const START_ROUNDS = 100;

/** What a part of a resting pause is there for. */
function purpose({ name, permissions }: Part, parts: readonly Part[], index: number): string {
  if (name === "[stack]") return "the stack, with the arguments and the environment at its end";
  if (name === "[vdso]") return "the kernel's own code for user space";
  if (/^\[v/.test(name)) return "the kernel's clock";
  const libc = /\/libc[.-][^/]*$/.test(name);
  if (libc && permissions === "r-xp") return "libc: code, shared by all processes of the node";
  if (libc && permissions === "r--p" && /rw/.test(parts[index + 1]?.permissions ?? ""))
    return "libc: relocated constants; one page, .got, is still needed";
  if (libc && permissions === "r--p")
    return "libc: headers and constants, shared by all processes of the node";
  if (libc) return "libc: data";
  if (name === freestanding.executable) return "the executable: one page, shared by all pods of the node";
  if (permissions === "r-xp") return "our routines: signal handlers, main loop and their data";
  if (parts[index - 1]?.name && permissions === "rw-p") return "libc: zero data, given back";
  return "the thread's block: errno, thread ID, restartable sequence";
}

const print = (...columns: readonly (string | number)[]) =>
  console.log(columns.map((column, index) => String(column).padEnd([36, 14, 14, 14][index] ?? 0)).join(""));

/** Lets each have a turn in each round, and prints the medians and how many times C's they are. */
async function compare(
  title: string,
  unit: string,
  rounds: number,
  of: Readonly<Record<string, () => number | Promise<number>>>,
): Promise<void> {
  const samples: Record<string, number[]> = {};
  for (let round = 0; round < rounds; round++) {
    if (round % Math.ceil(rounds / 5) === 0) progress(`${title}: ${round} of ${rounds} rounds`);
    for (const [name, measure] of Object.entries(of)) {
      samples[name] ??= [];
      samples[name].push(await measure());
    }
  }
  endProgress();
  const standard = median(samples[STANDARD] ?? []);
  console.log(`${title}, median of ${rounds}`);
  for (const [name, values] of Object.entries(samples))
    print(`  ${name}`, `${median(values).toFixed(2)} ${unit}`, (median(values) / standard).toFixed(2));
  console.log();
}

async function map(program: Program): Promise<void> {
  const instance = Bun.spawn([program.executable], { stdio: ["ignore", "ignore", "ignore"] });
  await untilAtRest(instance, program);
  const parts = mapOf(instance.pid);
  instance.kill("SIGKILL");
  console.log(`What is left of ${program.name} in memory, in KiB (private: paid for by each instance)`);
  print("  addresses", "size", "resident", "private", "what it is for");
  for (const [index, part] of parts.entries())
    print(`  ${part.addresses}`, part.size, part.resident, part.private, purpose(part, parts, index));
  const sum = (field: "size" | "resident" | "private") =>
    parts.reduce((total, part) => total + part[field], 0);
  print("  together", sum("size"), sum("resident"), sum("private"));
  console.log();
}

async function main(): Promise<void> {
  const how = missing({ cc: "gcc libc6-dev", "musl-gcc": "musl-tools" });
  if (how !== "") throw new Error(`the C program has to be compiled: ${how}`);
  const all = [isFreestanding, isHosted, glibc(), musl()];
  console.log(`In each list the last column is how many times that of ${STANDARD} (static) it is.\n`);
  const forEach = (measure: (peer: (typeof all)[number]) => () => number | Promise<number>) =>
    Object.fromEntries(all.map((peer) => [peer.name, measure(peer)]));

  await compare(
    `Memory charged to a cgroup at rest, each of ${INSTANCES}`,
    "KiB",
    MEMORY_ROUNDS,
    forEach(
      ({ command, rests }) =>
        async () =>
          (await costOf(command, INSTANCES, rests)).total,
    ),
  );
  const empty = new Command(emptyScript());
  await compare("exec to all three signals caught", "ms", START_ROUNDS, {
    ...forEach(({ command, ready }) => {
      const prepared = new Command(command);
      return () => untilReady(prepared, ready);
    }),
    "empty script of Bun, to its exit": () => untilExit(empty),
  });
  await compare(
    "-v, exec to exit",
    "ms",
    START_ROUNDS,
    forEach(({ exits }) => {
      const prepared = new Command(exits);
      return () => untilExit(prepared);
    }),
  );
  await map(freestanding);
  await map(hosted);
}

try {
  await main();
} catch (error) {
  console.error(`${basename(import.meta.path)}: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
