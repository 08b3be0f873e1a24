/**
 * npm run soak -- SECONDS [SEED [PROGRAM]...]: pods under random load, at the same time: one of each program. These are
 * all that are under test, or those of these names or paths.
 *
 * Containers join and leave, make orphans that die in every way, and send PID 1 every signal but the two that end it.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { release, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { random } from "../tests/helpers/dice.ts";
import { Pod } from "../tests/helpers/pod.ts";
import { childrenOf, proc, status, until } from "../tests/helpers/process.ts";
import { compile, type Program, programs, reference } from "../tests/helpers/programs.ts";

const MOST_CONTAINERS = 6;
/** Milliseconds: the longest life of a container, and the longest time until one more comes. */
const LONGEST_LIFE = 20_000;
const LONGEST_WAIT = 1000;
/** Milliseconds after which a zombie has been forgotten, however slow the machine. */
const FORGOTTEN = 10_000;
/** Milliseconds between two looks at the zombies. */
const LOOK = 25;

/** Exit codes of prlimit, nsenter and nice, and of a container that cannot begin; others end by chance. */
const NOT_STARTED = new Set([1, 2, 125, 126, 127]);

/** What PID 1 has at one moment. */
interface Possessions {
  /** Anonymous memory and page tables, in KiB. */
  memory: number;
  mappings: number;
  descriptors: number;
  threads: number;
}

function possessions(pid: number): Possessions {
  const anonymous = /^Anonymous: *(\d+) kB$/m.exec(proc(pid, "smaps_rollup"))?.[1];
  return {
    memory: Number(anonymous) + Number.parseInt(status(pid, "VmPTE"), 10),
    mappings: proc(pid, "maps").trimEnd().split("\n").length,
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    threads: Number(status(pid, "Threads")),
  };
}

/** What a pod went through, and how its PID 1 came out of it. */
export interface Figures {
  containers: number;
  signals: number;
  orphansMade: number;
  /** All that were made but those which were still there at the end, dead or alive. */
  orphansReaped: number;
  /** The longest time for which one was seen, in milliseconds. */
  longestZombie: number;
  /** The most that PID 1 ever had more than after its first orphans. */
  growth: Possessions;
  exitCode: number | null;
}

/** Whether it reaped all that there was, none of it only with another death, and is what it was at first. */
export const unharmed = (figures: Figures): boolean =>
  figures.orphansMade > 0 &&
  figures.orphansReaped === figures.orphansMade &&
  figures.longestZombie < FORGOTTEN &&
  Object.values(figures.growth).every((more) => more === 0) &&
  figures.exitCode === 0;

/** Runs a pod with this program as its PID 1 for so many seconds, and until its last container has left. */
export async function soak(program: Program, seconds: number, seed: number): Promise<Figures> {
  const next = random(seed);
  const container = compile("container");
  const folder = mkdtempSync(join(tmpdir(), "pause-soak-"));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  process.once("exit", remove);
  const counts = join(folder, "counts");
  writeFileSync(counts, new Uint8Array(3 * 8));
  const count = () => {
    const [forks = 0n, waits = 0n, signals = 0n] = new BigUint64Array(
      new Uint8Array(readFileSync(counts)).buffer,
    );
    return { orphans: Number(forks - waits), signals: Number(signals) };
  };
  await using pod = await Pod.atRest(program);
  const { pid } = pod;
  const running = new Set<Bun.Subprocess>();
  let containers = 0;
  let unstarted = 0;
  let zombies = new Map<number, number>();
  let longestZombie = 0;
  let first: Possessions | undefined;
  const growth: Possessions = { memory: 0, mappings: 0, descriptors: 0, threads: 0 };

  const end = performance.now() + seconds * 1000;
  let [nextContainer, nextSample] = [0, 0];
  for (;;) {
    const now = performance.now();
    if (now >= end && running.size === 0) break;
    if (status(pid, "State") === "") throw new Error(`PID 1 has ended: ${(await pod.end()).stderr}`);
    if (now < end && now >= nextContainer && running.size < MOST_CONTAINERS) {
      const life = Math.min(end - now, next() * LONGEST_LIFE).toFixed(0);
      const seed = String(Math.floor(next() * 2 ** 31));
      // Nice, so that it does not keep PID 1 from running.
      const of = ["nice", "-n", "19", container, counts, seed, life];
      const one = Bun.spawn(["prlimit", "--core=0", ...pod.inside(...of)], {
        stdio: ["ignore", "ignore", "ignore"],
      });
      containers++;
      running.add(one);
      one.exited.then((exitCode) => {
        running.delete(one);
        if (NOT_STARTED.has(exitCode)) unstarted++;
      });
      nextContainer = now + next() * LONGEST_WAIT;
    }
    const children = childrenOf(pid).filter((child) => /\) Z /.test(proc(child, "stat")));
    zombies = new Map(children.map((child) => [child, zombies.get(child) ?? now]));
    for (const since of zombies.values()) longestZombie = Math.max(longestZombie, now - since);
    if (now >= nextSample && count().orphans > 100) {
      const has = possessions(pid);
      first ??= has;
      for (const what of ["memory", "mappings", "descriptors", "threads"] as const)
        growth[what] = Math.max(growth[what], has[what] - first[what]);
      nextSample = now + 1000;
    }
    await Bun.sleep(LOOK);
  }
  if (unstarted > 0) throw new Error(`${unstarted} containers could not be started`);
  await until("no child", () => childrenOf(pid).length === 0, pod).catch(() => {});
  const left = pod.others().length;
  const { exitCode } = await pod.end("SIGTERM");
  const { orphans, signals } = count();
  remove();
  return {
    containers,
    signals,
    orphansMade: orphans,
    orphansReaped: orphans - left,
    longestZombie,
    growth,
    exitCode,
  };
}

if (import.meta.main) {
  const [seconds, seed = "1", ...names] = Bun.argv.slice(2);
  if (!(Number(seconds) > 0 && Number.isSafeInteger(Number(seed)))) {
    console.error("usage: npm run soak -- SECONDS [SEED [PROGRAM]...]");
    process.exit(2);
  }
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(130));
  try {
    const named = names.map(
      (name) =>
        programs.find((program) => program.name === name) ?? {
          ...reference,
          name: basename(name),
          executable: name,
        },
    );
    const soaked = named.length > 0 ? named : programs;
    console.log(`${seconds} s of random load on each, seed ${seed}, Linux ${release()}`);
    const figures = await Promise.all(soaked.map((program) => soak(program, Number(seconds), Number(seed))));
    const rows: Record<string, (figures: Figures) => unknown> = {
      "containers that joined and left": ({ containers }) => containers,
      "signals to PID 1": ({ signals }) => signals,
      "orphans made": ({ orphansMade }) => orphansMade,
      "orphans reaped": ({ orphansReaped }) => orphansReaped,
      "longest seen zombie, ms": ({ longestZombie }) => longestZombie.toFixed(0),
      "growth of memory, KiB": ({ growth }) => growth.memory,
      "growth of mappings": ({ growth }) => growth.mappings,
      "growth of descriptors": ({ growth }) => growth.descriptors,
      "growth of threads": ({ growth }) => growth.threads,
      "exit code on SIGTERM": ({ exitCode }) => exitCode,
    };
    const print = (...columns: unknown[]) =>
      console.log(columns.map((column, index) => String(column).padEnd(index === 0 ? 36 : 16)).join(""));
    print("", ...soaked.map(({ name }) => name));
    for (const [row, of] of Object.entries(rows)) print(row, ...figures.map(of));
    if (!figures.every(unharmed)) process.exitCode = 1;
  } catch (error) {
    console.error(`soak: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  }
}
