/**
 * npm run footprint: what dist/pause costs beside the C program, and what is left of it in memory.
 */
import { writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { scripts } from "../package.json" with { type: "json" };
import { must, status } from "../tests/helpers/process.ts";
import { dist, hosted, reference } from "../tests/helpers/programs.ts";
import { isAtRest, untilAtRest } from "../tests/helpers/rest.ts";
import { costOf, mapOf, median, type Part, untilExit, untilReady } from "./measure.ts";

const INSTANCES = 100;
const MEMORY_ROUNDS = 5;
const START_ROUNDS = 60;

/** What a part of a resting pause is there for. */
function purpose({ name, permissions }: Part, parts: readonly Part[], index: number): string {
  if (name === "[stack]") return "the stack, with the arguments and the environment at its end";
  if (name === "[vdso]") return "the kernel's own code for user space";
  const libc = /\/libc[.-][^/]*$/.test(name);
  if (libc && permissions === "r-xp") return "libc: code, shared by all processes of the node";
  if (libc && permissions === "r--p" && /rw/.test(parts[index + 1]?.permissions ?? ""))
    return "libc: relocated constants; one page, .got, is still needed";
  if (libc && permissions === "r--p")
    return "libc: headers and constants, shared by all processes of the node";
  if (libc) return "libc: data";
  if (permissions === "r-xp") return "our routines: signal handlers, main loop and their data";
  if (parts[index - 1]?.name && permissions === "rw-p") return "libc: zero data, given back";
  return "the thread's block: errno, thread ID, restartable sequence";
}

const print = (...columns: readonly (string | number)[]) =>
  console.log(columns.map((column, index) => String(column).padEnd([36, 14, 14, 14][index] ?? 0)).join(""));

async function memory(): Promise<void> {
  const samples = { pause: [] as number[], reference: [] as number[] };
  for (let round = 0; round < MEMORY_ROUNDS; round++) {
    for (const [name, program] of [["pause", hosted] as const, ["reference", reference] as const]) {
      const { memory } = await costOf([program.executable], INSTANCES, (pid) => isAtRest(pid, program));
      samples[name].push(memory.total);
    }
  }
  const [ours, its] = [median(samples.pause), median(samples.reference)];
  console.log(
    `Memory charged to a cgroup per resting instance, ${INSTANCES} at a time, median of ${MEMORY_ROUNDS}`,
  );
  print("  dist/pause", `${ours.toFixed(1)} KiB`);
  print("  the C program, static", `${its.toFixed(1)} KiB`);
  print("  ratio (at most 1.25, goal 1)", (ours / its).toFixed(2));
}

async function start(): Promise<void> {
  const script = join(dist, "empty.ts");
  const empty = join(dist, "empty");
  writeFileSync(script, "");
  const flags = scripts.build.split(" ").filter((flag) => flag.startsWith("--") && flag !== "--outfile");
  must(process.execPath, "build", ...flags, "--outfile", empty, script);
  const caught = (pid: number) => status(pid, "SigCgt").endsWith("14002");
  const samples = { pause: [] as number[], empty: [] as number[], reference: [] as number[] };
  for (let round = 0; round < START_ROUNDS; round++) {
    samples.pause.push(await untilReady([hosted.executable], caught));
    samples.empty.push(await untilExit([empty]));
    samples.reference.push(await untilReady([reference.executable], caught));
  }
  const [ours, nothing, its] = [median(samples.pause), median(samples.empty), median(samples.reference)];
  console.log(`Time from exec until all three signals are caught, median of ${START_ROUNDS}`);
  print("  dist/pause", `${ours.toFixed(1)} ms`);
  print("  an empty script, exec to exit", `${nothing.toFixed(1)} ms`);
  print("  the C program, static", `${its.toFixed(1)} ms`);
  print("  ratio to the empty script (at most 1.3)", (ours / nothing).toFixed(2));
}

async function map(): Promise<void> {
  const instance = Bun.spawn([hosted.executable], { stdio: ["ignore", "ignore", "ignore"] });
  await untilAtRest(instance, hosted);
  const parts = mapOf(instance.pid);
  instance.kill("SIGKILL");
  console.log("What is left in memory, in KiB (private: paid for by each instance)");
  print("  addresses", "size", "resident", "private", "what it is for");
  for (const [index, part] of parts.entries())
    print(`  ${part.addresses}`, part.size, part.resident, part.private, purpose(part, parts, index));
  const sum = (field: "size" | "resident" | "private") =>
    parts.reduce((total, part) => total + part[field], 0);
  print("  together", sum("size"), sum("resident"), sum("private"));
}

try {
  await memory();
  await start();
  await map();
} catch (error) {
  console.error(`${basename(import.meta.path)}: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
