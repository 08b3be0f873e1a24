/**
 * What one instance of a program costs: memory charged to a cgroup, what is mapped, and the time of its start.
 */
import { mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { childrenOf, proc, status, until } from "../tests/helpers/process.ts";

/** The middle one of an odd number of values, or the mean of the two middle ones. */
export function median(values: readonly number[]): number {
  const ordered = values.toSorted((one, other) => one - other);
  const half = ordered.length >> 1;
  const [low, high] = [ordered[half - 1] ?? 0, ordered[half] ?? 0];
  return ordered.length % 2 === 0 ? (low + high) / 2 : high;
}

/** KiB that one instance charges to its memory cgroup. */
export interface Memory {
  total: number;
  anonymous: number;
  /** Page tables, kernel stacks and objects. */
  kernel: number;
  file: number;
}

/** What a number of instances took: memory per instance, and milliseconds until the last was ready. */
export interface Cost {
  memory: Memory;
  start: number;
}

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

/** A fresh memory cgroup, of version 2 where that has the memory controller, else of version 1. */
class MemoryCgroup implements Disposable {
  readonly path: string;
  readonly #unified: boolean;

  constructor() {
    const own = readFileSync("/proc/self/cgroup", "utf8");
    const mounts = readFileSync("/proc/self/mounts", "utf8")
      .split("\n")
      .map((line) => line.split(" "));
    const version1 = mounts.find(
      ([, , type, options]) => type === "cgroup" && options?.split(",").includes("memory"),
    );
    const version2 = mounts.find(([, , type]) => type === "cgroup2");
    this.#unified = version1 === undefined;
    const parent = this.#unified ? (/^0::(.*)$/m.exec(own)?.[1] ?? "/") : "/";
    const mount = (version1 ?? version2)?.[1];
    if (mount === undefined) throw new Error("no memory cgroup is mounted here");
    this.path = join(mount, parent, `pause-bench-${process.pid}`);
    try {
      mkdirSync(this.path);
      this.#read(this.#unified ? "memory.current" : "memory.usage_in_bytes");
    } catch {
      throw new Error(`no memory cgroup can be made in ${join(mount, parent)}: run this as root`);
    }
    live.add(this);
  }

  #read(file: string): string {
    return readFileSync(join(this.path, file), "utf8");
  }

  /** Bytes that are charged now. */
  usage(): Memory {
    const stat = this.#read("memory.stat");
    const field = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, "m").exec(stat)?.[1] ?? 0);
    if (this.#unified)
      return {
        total: Number(this.#read("memory.current")),
        anonymous: field("anon"),
        kernel: field("kernel"),
        file: field("file"),
      };
    return {
      total: Number(this.#read("memory.usage_in_bytes")),
      anonymous: field("rss"),
      kernel: Number(this.#read("memory.kmem.usage_in_bytes")),
      file: field("cache"),
    };
  }

  /** Starts a program in it. */
  start(command: readonly string[]): Bun.Subprocess {
    // A shell moves itself and becomes the program, so that not even its first page is charged elsewhere.
    const script = `echo $$ > ${join(this.path, "cgroup.procs")} && exec "$@"`;
    return Bun.spawn(["sh", "-c", script, "sh", ...command], { stdio: ["ignore", "ignore", "ignore"] });
  }

  [Symbol.dispose](): void {
    const pids = this.#read("cgroup.procs").split("\n").filter(Boolean).map(Number);
    for (const pid of pids) process.kill(pid, "SIGKILL");
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

/** Whether a program that pauses is where it stays: it sleeps, with all the signals caught that it ever catches. */
export type Ready = (pid: number) => boolean;

const everAgain = (pid: number): boolean => status(pid, "State").startsWith("S");

/** Starts `count` instances, one behind the other, and ends them when nothing changes any more. */
export async function costOf(command: readonly string[], count: number, ready: Ready): Promise<Cost> {
  // Once outside, so that the page cache is charged elsewhere.
  const before = Bun.spawn([...command], { stdio: ["ignore", "ignore", "ignore"] });
  await until("rest", () => ready(before.pid), before);
  await end(before);

  using cgroup = new MemoryCgroup();
  const empty = cgroup.usage();
  const begin = performance.now();
  const instances = Array.from({ length: count }, () => cgroup.start(command));
  for (const one of instances) await until("rest", () => ready(one.pid) && everAgain(one.pid), one);
  const start = performance.now() - begin;
  // Page tables and objects that a start left behind are freed after a grace period of RCU.
  let [last, full] = [empty, cgroup.usage()];
  for (let same = 0; same < 4; same = last.total === full.total ? same + 1 : 0) {
    await Bun.sleep(40);
    [last, full] = [full, cgroup.usage()];
  }
  await Promise.all(instances.map(end));
  const each = (field: keyof Memory) => (full[field] - empty[field]) / count / 1024;
  const memory = {
    total: each("total"),
    anonymous: each("anonymous"),
    kernel: each("kernel"),
    file: each("file"),
  };
  return { memory, start };
}

/** Milliseconds from SIGTERM to the end of a program that is ready. */
export async function untilTerminated(command: readonly string[], ready: Ready): Promise<number> {
  const instance = Bun.spawn([...command], { stdio: ["ignore", "ignore", "ignore"] });
  await until("ready", () => ready(instance.pid), instance);
  const start = performance.now();
  instance.kill("SIGTERM");
  await instance.exited;
  return performance.now() - start;
}

/** Nanoseconds that a process has run (proc_pid_schedstat, Documentation/scheduler/sched-stats.rst). */
export const cpuTime = (pid: number): number => Number(proc(pid, "schedstat").split(" ")[0]);

/** Ends a program, and first the child that an init has. */
export async function end(instance: Bun.Subprocess): Promise<void> {
  for (const child of childrenOf(instance.pid)) kill(child);
  instance.kill("SIGKILL");
  await instance.exited;
}

/** Milliseconds from before a program is started until it has ended. */
export async function untilExit(command: readonly string[]): Promise<number> {
  const start = performance.now();
  Bun.spawnSync([...command], { stdio: ["ignore", "ignore", "ignore"] });
  return performance.now() - start;
}

/** Milliseconds from before a program is started until it is ready; it is killed then. */
export async function untilReady(command: readonly string[], ready: Ready): Promise<number> {
  const start = performance.now();
  const instance = Bun.spawn([...command], { stdio: ["ignore", "ignore", "ignore"] });
  let [last, now] = [start, start];
  // Looking more often slows down what is looked at; the middle of the last interval is as likely as any time in it.
  while (!ready(instance.pid)) {
    await Bun.sleep(1);
    [last, now] = [now, performance.now()];
  }
  await end(instance);
  return (last + now) / 2 - start;
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
