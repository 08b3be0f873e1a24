/**
 * npm run footprint: what is left of both builds in memory, and what for. What they cost is npm run bench's.
 */
import { freestanding, hosted, type Program } from "../tests/helpers/programs.ts";
import { untilAtRest } from "../tests/helpers/rest.ts";
import { mapOf, type Part } from "./measure.ts";

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

try {
  await map(freestanding);
  await map(hosted);
} catch (error) {
  console.error(`footprint: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
