/**
 * npm run bench -- [--publish] [SECONDS]: what both builds cost beside their peers, all measured in one run, in turns.
 *
 * SECONDS is the time that the rounds may take. The results go to dist/bench; --publish renews the tracked ones too.
 */
import { statSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { parseArgs } from "node:util";
import { version } from "../package.json" with { type: "json" };
import { ThisMachine } from "../tests/helpers/places.ts";
import { Pod } from "../tests/helpers/pod.ts";
import { childrenOf, output, until } from "../tests/helpers/process.ts";
import { compile } from "../tests/helpers/programs.ts";
import { lacking, ROOT } from "../tests/helpers/tools.ts";
import { imageOf, weigh } from "./images.ts";
import { costOf, cpuTime, untilExit, untilReady, untilTerminated } from "./measure.ts";
import { emptyScript, type Peer, peers } from "./peers.ts";
import { FOLDER, publish, write } from "./publish.ts";
import { containerd, crun, makeCold, podman, type Runtime } from "./runtimes.ts";
import { Command } from "./spawn.ts";
import { EMPTY, fullTable, type Results, summary } from "./table.ts";

/** What is asked for. Throws if it cannot be understood. */
function parseCommand(): { isPublished: boolean; seconds: number } {
  const options = { publish: { type: "boolean", default: false } } as const;
  const { values, positionals } = parseArgs({ args: Bun.argv.slice(2), options, allowPositionals: true });
  const [seconds = "240", ...more] = positionals;
  if (!(Number(seconds) > 0) || more.length > 0)
    throw new Error("usage: npm run bench -- [--publish] [SECONDS]");
  return { isPublished: values.publish, seconds: Number(seconds) };
}

/** Fewer tell nothing, more tell nothing more. */
const [FEWEST, MOST] = [3, 20];
const INSTANCES = 100;
/** Starts are short: so many in each round. */
const STARTS = 20;
const ORPHANS = 320;
const PODS = [110, 250, 500];
/** A pod of real runtimes takes long, so only these have one. */
const IN_RUNTIMES = ["freestanding", "hosted", "C, glibc", "C, musl"];

const begin = performance.now();
const elapsed = () => (performance.now() - begin) / 1000;

/** Says what is measured: on a terminal in one line that changes, elsewhere a line at a time. */
function progress(what: string): void {
  const [before, after] = process.stderr.isTTY ? ["\r\x1b[K", ""] : ["", "\n"];
  process.stderr.write(`${before}${Math.round(elapsed())} s: ${what}${after}`);
}

function endProgress(): void {
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
}

/** Each is the first in turn: what comes behind a program with two processes would always have to bear its end. */
const inTurn = <T>(list: readonly T[], turn: number): T[] => {
  const first = turn % Math.max(1, list.length);
  return [...list.slice(first), ...list.slice(0, first)];
};

/** Every value that was measured. */
type Samples = [measure: string, peer: string, value: number][];

/** Their summaries, by measure and then by peer. */
const summaries = (samples: Samples): Results["measures"] =>
  grouped(samples, 0, (ofMeasure) =>
    grouped(ofMeasure, 1, (ofPeer) => summary(ofPeer.map(([, , value]) => value))),
  );

const grouped = <T>(samples: Samples, by: 0 | 1, of: (group: Samples) => T): Record<string, T> =>
  Object.fromEntries(
    Map.groupBy(samples, (sample) => sample[by])
      .entries()
      .map(([key, group]) => [key, of(group)]),
  );

/** Reaping, as PID 1: orphans per second, and milliseconds of CPU time per 1,000. */
async function reaping({ command, rests }: Peer, orphans: string) {
  await using pod = await Pod.start(command);
  await until("rest", () => rests(pod.pid), pod);
  const keep = childrenOf(pod.pid).length;
  const cpu = cpuTime(pod.pid);
  const start = performance.now();
  const makers = Bun.spawn(pod.inside(orphans, "4", String(ORPHANS / 4)), { stdout: "ignore" });
  await makers.exited;
  await until("no orphan", () => childrenOf(pod.pid).length === keep, pod);
  const seconds = (performance.now() - start) / 1000;
  return { rate: ORPHANS / seconds, cpu: (cpuTime(pod.pid) - cpu) / 1e6 / (ORPHANS / 1000) };
}

const MAKE = { crun, podman, containerd };

const TOOLS = "buildah crun runc podman containerd zstd".split(" ");

/** @param leaveOut is told what cannot be measured, and why */
async function bench(seconds: number, leaveOut: (what: string, how: string) => void): Promise<Results> {
  const all = peers(leaveOut);
  const commands = new Map(all.map((peer) => [peer, new Command(peer.command)]));
  const exits = new Map(all.map((peer) => [peer, new Command(peer.exits)]));
  const empty = new Command(emptyScript());
  const reapers = all.filter(({ reaps }) => reaps);
  const orphans = compile("orphans");
  const samples: Samples = [];

  for (const { name, command } of all)
    samples.push(["executable", name, statSync(command[0] ?? "").size / 1024]);

  await using stack = new AsyncDisposableStack();
  const runtimes: [runtime: string, peer: string, Runtime][] = [];
  const how = lacking(ROOT, Object.fromEntries(TOOLS.map((tool) => [tool, tool])));
  if (how !== "") leaveOut("images and runtimes", how);
  else {
    const workshop = stack.use(new ThisMachine());
    await workshop.ready();
    for (const peer of all) {
      progress(`image of ${peer.name}`);
      const image = imageOf(peer, workshop);
      const { compressed, unpacked } = weigh(image);
      samples.push(["image compressed", peer.name, compressed]);
      samples.push(["image unpacked", peer.name, unpacked]);
      if (!IN_RUNTIMES.includes(peer.name)) continue;
      const id = peer.name.replace(/\W+/g, "-");
      for (const [runtime, make] of Object.entries(MAKE)) {
        progress(`image of ${peer.name} in ${runtime}`);
        const made = stack.use(await make(id, image, peer.rests, workshop));
        runtimes.push([runtime, peer.name, made]);
        await made.life();
      }
    }
  }

  const start = elapsed();
  let rounds = 0;
  for (; rounds < MOST; rounds++) {
    const spent = elapsed() - start;
    if (rounds >= FEWEST && spent + spent / rounds > seconds) break;
    const left = rounds === 0 ? "" : `, at most ${Math.max(0, Math.ceil(seconds - spent))} s left`;
    const inRound = (what: string) => progress(`round ${rounds + 1}${left}: ${what}`);
    for (const { name, command, rests } of inTurn(all, rounds)) {
      inRound(`memory of ${name}`);
      const memory = await costOf(command, INSTANCES, rests);
      for (const [part, value] of Object.entries(memory)) samples.push([`memory ${part}`, name, value]);
    }
    inRound("starts and ends");
    for (let turn = 0; turn < STARTS; turn++) {
      for (const peer of inTurn(all, rounds + turn)) {
        samples.push(["ready", peer.name, untilReady(commands.get(peer) ?? empty, peer.ready)]);
        samples.push(["exit", peer.name, untilExit(exits.get(peer) ?? empty)]);
        samples.push(["terminated", peer.name, untilTerminated(commands.get(peer) ?? empty, peer.rests)]);
      }
      samples.push(["exit", EMPTY, untilExit(empty)]);
    }
    for (const peer of inTurn(reapers, rounds)) {
      inRound(`reaping of ${peer.name}`);
      const { rate, cpu } = await reaping(peer, orphans);
      samples.push(["reaped", peer.name, rate]);
      samples.push(["reaping cpu", peer.name, cpu]);
    }
    for (const [name, peer, runtime] of inTurn(runtimes, rounds)) {
      for (const cache of ["warm", "cold"]) {
        inRound(`${name}, ${peer}, ${cache}`);
        if (cache === "cold") makeCold(runtime);
        const { time, peak } = await runtime.life();
        samples.push([`${name} ${cache} time`, peer, time]);
        samples.push([`${name} ${cache} peak`, peer, peak]);
      }
    }
  }

  const scale: Results["scale"] = {};
  for (const { name, command, rests } of all.filter((peer) => IN_RUNTIMES.includes(peer.name))) {
    const points: Record<string, number> = {};
    scale[name] = points;
    for (const pods of PODS) {
      progress(`${pods} of ${name}`);
      points[pods] = Number((((await costOf(command, pods, rests)).total * pods) / 1024).toPrecision(4));
    }
  }
  const packages = ["catatonit", "tini", "dumb-init", "crun", "podman", "containerd", "runc", "musl"];
  const installed = output(["dpkg-query", "-W", ...packages])
    .stdout.trim()
    .split("\n");
  return {
    date: new Date().toISOString().slice(0, 10),
    machine: `${cpus().length} CPUs (${cpus()[0]?.model ?? "?"}), ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}`,
    versions: {
      pause: version,
      Bun: Bun.version,
      ...Object.fromEntries(installed.map((line) => line.split("\t"))),
    },
    instances: INSTANCES,
    rounds,
    measures: summaries(samples),
    scale,
  };
}

try {
  const { isPublished, seconds } = parseCommand();
  const results = await bench(seconds, (what, how) => {
    if (isPublished) throw new Error(`nothing is published without ${what}: ${how}`);
    console.error(`left out: ${what} (${how})`);
  });
  endProgress();
  await write(results, FOLDER);
  if (isPublished) await publish(results);
  console.log(fullTable(results));
  console.log(`\n${elapsed().toFixed(0)} s; dist/bench has the results and the pictures.`);
} catch (error) {
  endProgress();
  console.error(`bench: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
