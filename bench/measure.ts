/**
 * What one instance of a program costs: memory charged to a cgroup, what is mapped, and the time of its start.
 */
import { mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { childrenOf, field, proc, status, until } from "../tests/helpers/process.ts";
import type { Has } from "./peers.ts";
import { Command, wait } from "./spawn.ts";

/**
 * KiB that one instance charges to its memory cgroup: what the process has for itself and how much of it is the stack;
 * the page cache, which is 0 where another cgroup has read the files before; what the kernel has for it and how much of
 * it is page tables, without their root.
 */
const PARTS = ["total", "anonymous", "stack", "file", "kernel", "page tables"] as const;
export type Memory = Record<(typeof PARTS)[number], number>;

/** A field of a file like /proc/meminfo. */
const kibibytes = (text: string, name: string): number => Number.parseInt(field(text, name), 10) || 0;

/** What has to go if the run is interrupted. */
const live = new Set<Disposable>();
process.on("SIGINT", () => {
  for (const child of childrenOf(process.pid)) for (const pid of [...childrenOf(child), child]) kill(pid);
  for (const one of live) one[Symbol.dispose]();
  process.exit(130);
});

function kill(pid: number): void {
  if (status(pid, "State") !== "") process.kill(pid, "SIGKILL");
}

/** Where memory cgroups are: of version 2 where that has the memory controller, else of version 1. */
function memoryCgroups(): { mount: string; unified: boolean } {
  const mounts = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "));
  const version1 = mounts.find(
    ([, , type, options]) => type === "cgroup" && options?.split(",").includes("memory"),
  );
  const version2 = mounts.find(([, , type]) => type === "cgroup2");
  const mount = (version1 ?? version2)?.[1];
  if (mount === undefined) throw new Error("no memory cgroup is mounted here");
  return { mount, unified: version1 === undefined };
}

/** The memory cgroup of a process. */
function cgroupOf(pid: number | "self"): string {
  const { mount, unified } = memoryCgroups();
  const path = (unified ? /^0::(.*)$/m : /:memory:(.*)$/m).exec(
    readFileSync(`/proc/${pid}/cgroup`, "utf8"),
  )?.[1];
  return join(mount, path ?? "");
}

/** KiB: the most that the cgroup of this process was ever charged, page cache included. */
export function peakOf(pid: number): number {
  const file = memoryCgroups().unified ? "memory.peak" : "memory.max_usage_in_bytes";
  return Number(readFileSync(join(cgroupOf(pid), file), "utf8")) / 1024;
}

/** A fresh memory cgroup. */
class MemoryCgroup implements Disposable {
  readonly path: string;
  readonly #unified: boolean;

  constructor() {
    const { mount, unified } = memoryCgroups();
    this.#unified = unified;
    this.path = join(unified ? cgroupOf("self") : mount, `pause-bench-${process.pid}`);
    try {
      mkdirSync(this.path);
      this.usage();
    } catch (cause) {
      throw new Error(`no memory cgroup can be made in ${mount}: run this as root (${cause})`);
    }
    live.add(this);
  }

  #read(file: string): string {
    return readFileSync(join(this.path, file), "utf8");
  }

  /** The processes in it. */
  get processes(): number[] {
    return this.#read("cgroup.procs").split("\n").filter(Boolean).map(Number);
  }

  /**
   * KiB that are charged now. The sum of the parts, because the counter of them all, and the statistics, run ahead of
   * or behind it by up to 64 pages a CPU (mm/memcontrol.c, MEMCG_CHARGE_BATCH).
   */
  usage(): Memory {
    const stat = this.#read("memory.stat");
    const counted = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, "m").exec(stat)?.[1] ?? 0) / 1024;
    const kernel = this.#unified
      ? counted("kernel")
      : Number(this.#read("memory.kmem.usage_in_bytes")) / 1024;
    const file = counted(this.#unified ? "file" : "cache");
    let [anonymous, stack, pageTables] = [0, 0, 0];
    for (const pid of this.processes) {
      anonymous += kibibytes(proc(pid, "smaps_rollup"), "Anonymous");
      stack += mapOf(pid).find(({ name }) => name === "[stack]")?.private ?? 0;
      pageTables += kibibytes(proc(pid, "status"), "VmPTE");
    }
    return { total: anonymous + kernel + file, anonymous, stack, file, kernel, "page tables": pageTables };
  }

  /**
   * A shell in it that starts a program so many times as soon as it reads a line. It moves before it starts them, so
   * that all that the kernel has for a process is charged here: it charges the one who forks.
   */
  launcher(command: readonly string[], count: number) {
    const script = `echo $$ >${join(this.path, "cgroup.procs")} && read -r go &&
      { i=0; while [ $i -lt ${count} ]; do "$@" & i=$((i+1)); done; wait; }`;
    return Bun.spawn(["sh", "-c", script, "sh", ...command], {
      stdio: ["pipe", "ignore", "ignore"],
      env: { PATH: process.env.PATH },
    });
  }

  [Symbol.dispose](): void {
    for (const pid of this.processes) kill(pid);
    // A process that has ended leaves its cgroup a moment after its parent knows.
    for (let left = 1000; left > 0; left--) {
      try {
        rmdirSync(this.path);
        live.delete(this);
        return;
      } catch {
        Bun.sleepSync(5);
      }
    }
    throw new Error(`${this.path} cannot be removed`);
  }
}

/** What one of `count` instances charges when all are at rest and nothing changes any more. */
export async function costOf(command: readonly string[], count: number, rests: Has): Promise<Memory> {
  // Once outside, so that the page cache is charged elsewhere.
  untilReady(new Command(command), rests);

  using cgroup = new MemoryCgroup();
  const launcher = cgroup.launcher(command, count);
  await until("the shell in its cgroup", () => cgroup.processes.includes(launcher.pid), launcher);
  const settled = async () => {
    // Page tables and objects that a start left behind are freed after a grace period of RCU.
    let [last, now] = [cgroup.usage(), cgroup.usage()];
    for (let same = 0; same < 4; same = last.total === now.total ? same + 1 : 0) {
      await Bun.sleep(40);
      [last, now] = [now, cgroup.usage()];
    }
    return now;
  };
  const empty = await settled();
  launcher.stdin.write("go\n");
  launcher.stdin.end();
  await until("all instances", () => childrenOf(launcher.pid).length === count, launcher);
  for (const pid of childrenOf(launcher.pid)) await until("rest", () => rests(pid), { pid });
  const full = await settled();
  for (const pid of cgroup.processes) kill(pid);
  await launcher.exited;
  return Object.fromEntries(PARTS.map((part) => [part, (full[part] - empty[part]) / count])) as Memory;
}

/** Nanoseconds that a process has run (proc_pid_schedstat, Documentation/scheduler/sched-stats.rst). */
export const cpuTime = (pid: number): number => Number(proc(pid, "schedstat").split(" ")[0]);

/** Waits for it without sleep: what sleeps is late. */
function busily(what: string, has: Has, pid: number): void {
  const end = performance.now() + 60_000;
  while (!has(pid)) if (performance.now() > end) throw new Error(`${what}: not within 60 s`);
}

/** Ends a child that was started with `Command`, and first the child that an init has. */
function finish(pid: number): void {
  for (const child of childrenOf(pid)) kill(child);
  kill(pid);
  wait(pid);
}

/** Milliseconds from before a program is started until it has ended. */
export function untilExit(command: Command): number {
  const start = performance.now();
  wait(command.start());
  return performance.now() - start;
}

/** Milliseconds from before a program is started until it is ready; it is killed then. */
export function untilReady(command: Command, ready: Has): number {
  const start = performance.now();
  const pid = command.start();
  busily("ready", ready, pid);
  const time = performance.now() - start;
  finish(pid);
  return time;
}

/** Milliseconds from SIGTERM to the end of a program that is at rest. */
export function untilTerminated(command: Command, rests: Has): number {
  const pid = command.start();
  busily("rest", rests, pid);
  const start = performance.now();
  process.kill(pid, "SIGTERM");
  wait(pid);
  return performance.now() - start;
}

/** A part of an address space, in KiB. */
export interface Part {
  addresses: string;
  permissions: string;
  size: number;
  resident: number;
  private: number;
  name: string;
}

/** What is mapped in a process (proc_pid_smaps(5)). */
export function mapOf(pid: number): Part[] {
  return proc(pid, "smaps")
    .split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)
    .filter(Boolean)
    .map((text) => {
      const [addresses = "", permissions = "", , , , name = ""] = (text.split("\n")[0] ?? "").split(/ +/);
      const field = (key: string) => Number(new RegExp(`^${key}: *(\\d+) kB$`, "m").exec(text)?.[1] ?? 0);
      const [size, resident] = [field("Size"), field("Rss")];
      return { addresses, permissions, size, resident, private: field("Private_Dirty"), name };
    })
    .filter(({ name }) => name !== "[vsyscall]");
}
