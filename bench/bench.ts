/**
 * npm run bench: what dist/pause costs beside its peers, all measured in one run, in turns.
 *
 * bun bench/bench.ts [--peer NAME=PATH]…
 */
import { writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import { version } from "../package.json" with { type: "json" };
import { Pod } from "../tests/helpers/pod.ts";
import { childrenOf, must, output, proc, status, until } from "../tests/helpers/process.ts";
import { compile, dist, hosted, reference, root } from "../tests/helpers/programs.ts";
import { isAtRest } from "../tests/helpers/rest.ts";
import {
  costOf,
  cpuTime,
  end,
  mapOf,
  type Ready,
  untilExit,
  untilReady,
  untilTerminated,
} from "./measure.ts";
import { pictures } from "./pictures.ts";
import { type Results, type Samples, table } from "./table.ts";

const INSTANCES = 100;
const ROUNDS = 10;
const ORPHANS = 320;
const IDLE_SECONDS = 10;
const SCALE = [1, 10, 100, 500, 1000];

interface Program {
  name: string;
  command: string[];
  ready: Ready;
  /** Where it is then for good; for ours and C's, when the start is over too. */
  atRest: Ready;
  /** Arguments that print the version, if there are such. */
  version?: string[];
}

const caught: Ready = (pid) => status(pid, "SigCgt").endsWith("14002");
const oursRests: Ready = (pid) => isAtRest(pid, hosted);
const itsRests: Ready = (pid) => isAtRest(pid, reference);
const sleeps: Ready = (pid) => status(pid, "State").startsWith("S");
const sleepsWithMask: Ready = (pid) =>
  status(pid, "SigBlk") !== "0000000000000000" && status(pid, "State").startsWith("S");
/** An init with a child is ready when the child sleeps. */
const childSleeps: Ready = (pid) =>
  childrenOf(pid).some(
    (child) => proc(child, "comm") === "sleep\n" && status(child, "State").startsWith("S"),
  );

function programs(): Program[] {
  const dynamic = join(dist, "reference-dynamic");
  must("cc", "-Os", "-s", `-DVERSION="${version}"`, "-o", dynamic, join(root, "tests/helpers/reference.c"));
  const all: Program[] = [
    { name: "pause (this)", command: [hosted.executable], ready: caught, atRest: oursRests, version: ["-v"] },
    { name: "C, static", command: [reference.executable], ready: caught, atRest: itsRests, version: ["-v"] },
    { name: "C, dynamic", command: [dynamic], ready: caught, atRest: itsRests, version: ["-v"] },
    {
      name: "catatonit -P",
      command: ["catatonit", "-P"],
      ready: sleepsWithMask,
      atRest: sleepsWithMask,
      version: ["-V"],
    },
    {
      name: "tini -- sleep",
      command: ["tini", "--", "sleep", "infinity"],
      ready: childSleeps,
      atRest: childSleeps,
      version: ["--version"],
    },
    {
      name: "dumb-init sleep",
      command: ["dumb-init", "sleep", "infinity"],
      ready: childSleeps,
      atRest: childSleeps,
      version: ["--version"],
    },
  ];
  for (const [index, argument] of Bun.argv.entries()) {
    const [name, path] = (Bun.argv[index + 1] ?? "").split("=");
    if (argument === "--peer" && name && path)
      all.push({ name, command: [path], ready: sleeps, atRest: sleeps });
  }
  return all.filter(({ name, command: [executable = ""] }) => {
    if (Bun.which(executable) !== null) return true;
    console.log(`left out: ${name}, which is not installed (apt-get install ${executable})`);
    return false;
  });
}

const started = performance.now();
let done = 0;
/** Shows what is measured and, from how long it took so far, how long the rest will take. */
function progress(what: string, steps: number): void {
  const left = done === 0 ? 0 : (((performance.now() - started) / done) * (steps - done)) / 1000;
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${what}, ${Math.ceil(left)} s left`);
  done++;
}

/** Reaping, as PID 1: orphans per second, CPU time per 1,000, and the longest time that a zombie was seen. */
async function reaping({ command, atRest }: Program, orphans: string) {
  await using pod = await Pod.start(command);
  await until("rest", () => atRest(pod.pid), pod);
  const cpu = cpuTime(pod.pid);
  const start = performance.now();
  const makers = Bun.spawn(pod.inside(orphans, "4", String(ORPHANS / 4)), { stdout: "ignore" });
  const firstSeen = new Map<number, number>();
  let longest = 0;
  const keep = new Set(childrenOf(pod.pid));
  for (;;) {
    const children = childrenOf(pod.pid).filter((pid) => !keep.has(pid));
    const now = performance.now();
    for (const pid of children) {
      if (!status(pid, "State").startsWith("Z")) continue;
      const first = firstSeen.get(pid) ?? now;
      firstSeen.set(pid, first);
      longest = Math.max(longest, now - first);
    }
    if (makers.exitCode !== null && children.length === 0) break;
    await Bun.sleep(1);
  }
  const seconds = (performance.now() - start) / 1000;
  return { rate: ORPHANS / seconds, cpu: (cpuTime(pod.pid) - cpu) / 1e6 / (ORPHANS / 1000), longest };
}

/** The life of a container with this executable as its process: create, start, kill, delete. */
function containerLife(bundle: string, id: string): number {
  // crun does not work where an empty cgroup2 is mounted beside the controllers of version 1.
  const life = `umount /sys/fs/cgroup/unified 2>/dev/null
    crun create --bundle ${bundle} ${id} && crun start ${id} && crun kill ${id} KILL &&
    until crun delete ${id} 2>/dev/null; do :; done`;
  const start = performance.now();
  must("unshare", "--mount", "sh", "-c", life);
  return performance.now() - start;
}

/** podman with a store of its own, in which the images of these names are made from the bundles of these folders. */
class Podman implements Disposable {
  readonly #folder = must("mktemp", "-d").trim();

  constructor(bundles: Record<string, string>) {
    const machine = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n';
    const engine = '[engine]\ncgroup_manager = "cgroupfs"\nruntime = "crun"\nevents_logger = "file"\n';
    writeFileSync(join(this.#folder, "containers.conf"), machine + engine);
    for (const [name, bundle] of Object.entries(bundles))
      this.run(
        `tar --create --directory ${bundle}/rootfs . | podman $STORE import --quiet --change 'ENTRYPOINT ["/pause"]' - ${name}`,
      );
  }

  /** Runs a shell script in which $STORE are podman's options for the store. */
  run(script: string): void {
    const store = `--root ${this.#folder}/root --runroot ${this.#folder}/run --storage-driver vfs`;
    const setup = `umount /sys/fs/cgroup/unified 2>/dev/null; export CONTAINERS_CONF=${this.#folder}/containers.conf`;
    must("unshare", "--mount", "sh", "-c", `${setup}; STORE="${store}"; ${script}`);
  }

  /** Milliseconds of a pod's life: created, started, stopped and removed. */
  life(image: string): number {
    const start = performance.now();
    this.run(
      `podman $STORE pod create --name bench --infra-image ${image} --share pid,ipc,uts --network none &&
       podman $STORE pod start bench && podman $STORE pod rm --force bench`,
    );
    return performance.now() - start;
  }

  [Symbol.dispose](): void {
    output(["rm", "-rf", this.#folder]);
  }
}

/** A bundle with this executable, and whatever it links, as its root file system. */
function bundleOf(name: string, executable: string): string {
  const bundle = join(dist, `bundle-${name}`);
  must("rm", "-rf", bundle);
  must("mkdir", "-p", join(bundle, "rootfs"));
  for (const [, file] of output(["ldd", executable]).stdout.matchAll(/(\/\S+) \(/g)) {
    must("mkdir", "-p", join(bundle, "rootfs", join(file ?? "", "..")));
    must("cp", "-L", file ?? "", join(bundle, "rootfs", file ?? ""));
  }
  must("cp", executable, join(bundle, "rootfs/pause"));
  must(
    "sh",
    "-c",
    `cd ${bundle} && crun spec && sed -i 's|"terminal": true|"terminal": false|; s|"sh"|"/pause"|' config.json`,
  );
  return bundle;
}

const IMAGES: Record<string, string> = {
  "pause (this)": "localhost/pause-bench:1",
  "C, static": "localhost/c-bench:1",
};

const podmanWith = (bundles: readonly (readonly [name: string, bundle: string])[]) =>
  new Podman(Object.fromEntries(bundles.map(([name, bundle]) => [IMAGES[name] ?? "", bundle])));

async function bench(): Promise<Results> {
  const all = programs();
  const orphans = compile("orphans");
  const samples: Record<string, Samples> = Object.fromEntries(all.map(({ name }) => [name, {}]));
  const add = (name: string, measure: string, value: number) => {
    const of = samples[name] ?? {};
    of[measure] = [...(of[measure] ?? []), value];
  };
  const crun = Bun.which("crun") !== null && process.getuid?.() === 0;
  if (!crun) console.log("left out: a container's life, which needs root and crun (apt-get install crun)");
  const bundles = crun
    ? [
        ["pause (this)", bundleOf("pause", hosted.executable)] as const,
        ["C, static", bundleOf("reference", reference.executable)] as const,
      ]
    : [];
  if (Bun.which("podman") === null)
    console.log("left out: a pod's life, which needs podman (apt-get install podman)");
  using podman = crun && Bun.which("podman") !== null ? podmanWith(bundles) : undefined;
  const steps = ROUNDS * all.length * 2 + all.length + SCALE.length * 2;

  for (let round = 0; round < ROUNDS; round++) {
    // Each starts a round in turn: what comes behind a program with two processes would always have to bear its end.
    const turn = [...all.slice(round % all.length), ...all.slice(0, round % all.length)];
    for (const program of turn) {
      progress(`memory of ${program.name}, round ${round + 1} of ${ROUNDS}`, steps);
      const { memory } = await costOf(program.command, INSTANCES, program.ready);
      for (const [part, value] of Object.entries(memory)) add(program.name, `memory ${part}`, value);
    }
    for (const program of turn) {
      progress(`start, reaping and end of ${program.name}, round ${round + 1} of ${ROUNDS}`, steps);
      add(program.name, "ready", await untilReady(program.command, program.ready));
      const [executable = ""] = program.command;
      if (program.version) add(program.name, "version", await untilExit([executable, ...program.version]));
      add(program.name, "terminated", await untilTerminated(program.command, program.atRest));
      const { rate, cpu, longest } = await reaping(program, orphans);
      add(program.name, "reaped", rate);
      add(program.name, "reaping cpu", cpu);
      add(program.name, "longest zombie", longest);
    }
    for (const [name, bundle] of bundles)
      add(name, "container", containerLife(bundle, `pause-bench-${process.pid}`));
    if (podman !== undefined) for (const [name] of bundles) add(name, "pod", podman.life(IMAGES[name] ?? ""));
  }

  progress(`${IDLE_SECONDS} s of rest`, steps);
  const idle = all.map(({ name, command, ready }) => ({
    name,
    ready,
    process: Bun.spawn([...command], { stdio: ["ignore", "ignore", "ignore"] }),
  }));
  for (const { process, ready } of idle) await until("ready", () => ready(process.pid), process);
  await Bun.sleep(500);
  const wakeups = (pid: number) =>
    Number(status(pid, "voluntary_ctxt_switches")) + Number(status(pid, "nonvoluntary_ctxt_switches"));
  const before = idle.map(({ process: { pid } }) => [wakeups(pid), cpuTime(pid)] as const);
  await Bun.sleep(IDLE_SECONDS * 1000);
  for (const [index, { name, process }] of idle.entries()) {
    const [wakeupsBefore = 0, cpuBefore = 0] = before[index] ?? [];
    add(name, "idle wake-ups", wakeups(process.pid) - wakeupsBefore);
    add(name, "idle cpu", cpuTime(process.pid) - cpuBefore);
    add(name, "threads", Number(status(process.pid, "Threads")));
    const parts = mapOf(process.pid);
    add(name, "mappings", parts.length);
    add(
      name,
      "private",
      parts.reduce((total, part) => total + part.private, 0),
    );
    await end(process);
  }

  const scale: Results["scale"] = {};
  for (const program of all.slice(0, 2)) {
    scale[program.name] = [];
    for (const count of SCALE) {
      progress(`${count} of ${program.name}`, steps);
      const { memory, start } = await costOf(program.command, count, program.ready);
      scale[program.name]?.push({ count, memory: (memory.total * count) / 1024, start });
    }
  }
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");

  return {
    date: new Date().toISOString().slice(0, 10),
    machine: `${cpus().length} × ${cpus()[0]?.model ?? "?"}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}`,
    versions: {
      pause: version,
      bun: Bun.version,
      peers: output(["dpkg-query", "-W", "catatonit", "tini", "dumb-init", "crun"]).stdout.trim(),
    },
    instances: INSTANCES,
    rounds: ROUNDS,
    samples,
    scale,
    size: {
      executable: Bun.file(hosted.executable).size,
      image: Bun.file(join(dist, "pause.oci.tar")).size / 2,
      reference: Bun.file(reference.executable).size,
    },
  };
}

try {
  const results = await bench();
  await Bun.write(join(import.meta.dir, "results.json"), `${JSON.stringify(results)}\n`);
  await pictures(results);
  console.log(table(results));
  console.log(
    `${((performance.now() - started) / 1000).toFixed(0)} s; bench/results.json and bench/*.svg are written; npm run bench:readme puts them into README.md`,
  );
} catch (error) {
  console.error(`bench: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
