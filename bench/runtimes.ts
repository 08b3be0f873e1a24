/**
 * What a pod costs in real runtimes: the time of its life, and the most memory that its cgroup was ever charged.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { ThisMachine } from "../tests/helpers/places.ts";
import { childrenOf, isGone, must, output, until } from "../tests/helpers/process.ts";
import { podmanOf, rootOf, type Sandbox, specify, startContainerd } from "../tests/helpers/runtimes.ts";
import type { Archive } from "./images.ts";
import { peakOf } from "./measure.ts";
import type { Has } from "./peers.ts";

/** Milliseconds, and KiB. */
export interface Life {
  readonly time: number;
  readonly peak: number;
}

/** A runtime that has one image. */
export interface Runtime extends AsyncDisposable {
  /** The life of one pod: created, at rest, ended, removed. Looking at its memory takes no time of it. */
  life(): Promise<Life>;
  /** Where the files of its image are. */
  readonly files: string;
}

/** The files of an image are read from the disk the next time. */
export function makeCold({ files }: Runtime): void {
  output(["find", files, ..."-type f -exec dd if={} iflag=nocache count=0 status=none ;".split(" ")]);
}

/** Times a life that has these two halves. */
async function timed(
  start: () => Promise<number> | number,
  rests: Has,
  end: (pid: number) => Promise<void> | void,
): Promise<Life> {
  const begin = performance.now();
  const pid = await start();
  await until("rest", () => rests(pid), { pid });
  const rested = performance.now();
  const peak = peakOf(pid);
  const ending = performance.now();
  await end(pid);
  return { time: rested - begin + performance.now() - ending, peak };
}

/** A container of crun's, in the root file system of the image. */
export function crun(name: string, image: Archive, rests: Has, workshop: ThisMachine): Runtime {
  const store = podmanOf(workshop, `crun-${name}`);
  must(...store("load", "--quiet", "--input", image.archive));
  const folder = join(workshop.folder, `crun-${name}`);
  const files = join(folder, "rootfs");
  rootOf(store, image.name, files);
  const inspect = ["image", "inspect", "--format", "{{json .Config.Entrypoint}}", image.name];
  const args = JSON.parse(must(...store(...inspect)));
  specify(folder, "crun", (config) => Object.assign(config.process, { args }));
  const id = `pause-bench-${process.pid}`;
  const pidFile = join(folder, "pid");
  return {
    files,
    life: () =>
      timed(
        () => {
          // What is created holds its outputs until it is started: a pipe would be waited for forever.
          const create = `exec crun create --bundle ${folder} --pid-file ${pidFile} ${id} >/dev/null 2>&1`;
          workshop.must("sh", "-c", create);
          workshop.must("crun", "start", id);
          return Number(readFileSync(pidFile, "utf8"));
        },
        rests,
        async (pid) => {
          workshop.must("crun", "kill", id, "TERM");
          await until("its end", () => isGone(pid), { pid });
          workshop.must("crun", "delete", id);
        },
      ),
    async [Symbol.asyncDispose]() {
      output(workshop.inside("crun", "delete", "--force", id));
    },
  };
}

/** A pod of podman's, with the image as its infra container. */
export function podman(name: string, image: Archive, rests: Has, workshop: ThisMachine): Runtime {
  const command = podmanOf(workshop, `podman-${name}`, { driver: "overlay" });
  const run = (...args: readonly string[]) => must(...command(...args));
  run("load", "--quiet", "--input", image.archive);
  const folder = join(workshop.folder, `podman-${name}`);
  const conmon = join(folder, "conmon.pid");
  const options = ["--infra-image", image.name, "--share", "pid,ipc,uts", "--network", "none"];
  return {
    files: join(folder, "root/overlay"),
    life: () =>
      timed(
        () => {
          run("pod", "create", "--name", "bench", ...options, "--infra-conmon-pidfile", conmon);
          run("pod", "start", "bench");
          return childrenOf(Number(readFileSync(conmon, "utf8")))[0] ?? 0;
        },
        rests,
        () => {
          run("pod", "stop", "bench");
          run("pod", "rm", "bench");
        },
      ),
    async [Symbol.asyncDispose]() {
      output(command("pod", "rm", "--force", "--all"));
    },
  };
}

/** A pod of containerd's, by its Container Runtime Interface, with the image as its sandbox. */
export async function containerd(
  name: string,
  image: Archive,
  rests: Has,
  workshop: ThisMachine,
): Promise<Runtime> {
  const folder = `containerd-bench-${name}`;
  const daemon = await startContainerd(workshop, folder, {
    image: image.name,
    archives: [image.archive],
    snapshotter: "overlayfs",
    cgroup: `/pause-bench-pods-${process.pid}`,
  });
  let sandbox: Sandbox | undefined;
  return {
    files: join(workshop.folder, folder, "root/io.containerd.snapshotter.v1.overlayfs"),
    life: () =>
      timed(
        async () => {
          sandbox = await daemon.sandboxes.run("bench", { network: "NODE" }, "Unconfined");
          return sandbox.pid;
        },
        rests,
        () => sandbox?.remove(),
      ),
    [Symbol.asyncDispose]: () => daemon[Symbol.asyncDispose](),
  };
}
