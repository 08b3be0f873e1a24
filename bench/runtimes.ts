/**
 * What a pod costs in real runtimes: the time of its life, and the most memory that its cgroup was ever charged.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { childrenOf, output, status, until } from "../tests/helpers/process.ts";
import { dist } from "../tests/helpers/programs.ts";
import { connect, readJson } from "../tests/helpers/runtimes.ts";
import type { Workshop } from "../tests/helpers/workshop.ts";
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
  output([
    "find",
    files,
    "-type",
    "f",
    "-exec",
    "dd",
    "if={}",
    "iflag=nocache",
    "count=0",
    "status=none",
    ";",
  ]);
}

/** Times a life that has these two halves. */
async function timed(
  start: () => Promise<number>,
  rests: Has,
  end: () => Promise<void> | void,
): Promise<Life> {
  const begin = performance.now();
  const pid = await start();
  await until("rest", () => rests(pid), { pid });
  const rested = performance.now();
  const peak = peakOf(pid);
  const ending = performance.now();
  await end();
  return { time: rested - begin + performance.now() - ending, peak };
}

/** A container of crun's, in the root file system of the image. */
export function crun(name: string, image: Archive, rests: Has, workshop: Workshop): Runtime {
  const folder = join(workshop.folder, `crun-${name}`);
  const id = `pause-bench-${process.pid}`;
  const pidFile = join(folder, "pid");
  const store = workshop.store("roots");
  const container = workshop
    .must("buildah", ...store, "from", `oci-archive:${image.archive}:${image.name}`)
    .trim();
  mkdirSync(folder);
  workshop.must(
    "cp",
    "-a",
    workshop.must("buildah", ...store, "mount", container).trim(),
    join(folder, "rootfs"),
  );
  workshop.must("crun", "spec", "--bundle", folder);
  const { Entrypoint } = JSON.parse(workshop.must("buildah", ...store, "inspect", container)).OCIv1.config;
  const config = readJson(join(folder, "config.json"));
  Object.assign(config.process, { args: Entrypoint, terminal: false });
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  return {
    files: join(folder, "rootfs"),
    life: () =>
      timed(
        async () => {
          // What is created holds its outputs until it is started: a pipe would be waited for forever.
          const create = `exec crun create --bundle ${folder} --pid-file ${pidFile} ${id} >/dev/null 2>&1`;
          workshop.must("sh", "-c", create);
          workshop.must("crun", "start", id);
          return Number(readFileSync(pidFile, "utf8"));
        },
        rests,
        async () => {
          const pid = Number(readFileSync(pidFile, "utf8"));
          workshop.must("crun", "kill", id, "TERM");
          await until("its end", () => /^(Z|$)/.test(status(pid, "State")), { pid });
          workshop.must("crun", "delete", id);
        },
      ),
    async [Symbol.asyncDispose]() {
      output(workshop.inside("crun", "delete", "--force", id));
    },
  };
}

/** A pod of podman's, with the image as its infra container. */
export function podman(name: string, image: Archive, rests: Has, workshop: Workshop): Runtime {
  const folder = join(workshop.folder, `podman-${name}`);
  mkdirSync(folder);
  // What a machine without CAP_SYS_RESOURCE and without systemd needs.
  const conf = join(folder, "containers.conf");
  const limits = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n';
  const engine = '[engine]\ncgroup_manager = "cgroupfs"\nruntime = "crun"\nevents_logger = "file"\n';
  writeFileSync(conf, limits + engine);
  const files = join(folder, "root");
  const command = (...args: readonly string[]) => [
    ...["env", `CONTAINERS_CONF=${conf}`, "podman", "--root", files, "--runroot", join(folder, "run")],
    ...["--storage-driver", "overlay", ...args],
  ];
  const run = (...args: readonly string[]) => workshop.must(...command(...args));
  run("load", "--quiet", "--input", image.archive);
  const conmon = join(folder, "conmon.pid");
  const create = [
    "--name",
    "bench",
    "--infra-image",
    image.name,
    "--share",
    "pid,ipc,uts",
    "--network",
    "none",
  ];
  return {
    files: join(files, "overlay"),
    life: () =>
      timed(
        async () => {
          run("pod", "create", ...create, "--infra-conmon-pidfile", conmon);
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
      output(workshop.inside(...command("pod", "rm", "--force", "--all")));
    },
  };
}

/** A pod of containerd's, by its Container Runtime Interface, with the image as its sandbox. */
export async function containerd(
  name: string,
  image: Archive,
  rests: Has,
  workshop: Workshop,
): Promise<Runtime> {
  const folder = join(workshop.folder, `containerd-${name}`);
  const socket = join(folder, "containerd.sock");
  mkdirSync(folder);
  const config = `version = 2
    root = "${folder}/root"
    state = "${folder}/state"
    [grpc]
    address = "${socket}"
    [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "${image.name}"
    restrict_oom_score_adj = true
    disable_hugetlb_controller = true
    disable_apparmor = true`;
  writeFileSync(join(folder, "config.toml"), config);
  const daemon = Bun.spawn(workshop.inside("containerd", "--config", join(folder, "config.toml")), {
    stdio: ["ignore", "ignore", Bun.file(join(dist, `containerd-bench-${name}.log`))],
  });
  const ctr = (...args: readonly string[]) =>
    workshop.inside("ctr", "--address", socket, "--namespace", "k8s.io", ...args);
  await until("containerd", () => output(ctr("version")).exitCode === 0, daemon);
  const { exitCode, stderr } = output(ctr("images", "import", image.archive));
  if (exitCode !== 0) throw new Error(stderr);
  const call = connect(socket);
  let id = "";
  return {
    files: join(folder, "root/io.containerd.snapshotter.v1.overlayfs"),
    life: () =>
      timed(
        async () => {
          const security_context = { namespace_options: { network: "NODE", pid: "POD" } };
          const linux = { cgroup_parent: `/pause-bench-pods-${process.pid}`, security_context };
          const sandbox = { metadata: { name: "bench", uid: "bench", namespace: "default" }, linux };
          id = String((await call("RunPodSandbox", { config: sandbox })).pod_sandbox_id);
          const { info } = await call("PodSandboxStatus", { pod_sandbox_id: id, verbose: true });
          return Number(JSON.parse((info as { info: string }).info).pid);
        },
        rests,
        async () => {
          await call("StopPodSandbox", { pod_sandbox_id: id });
          await call("RemovePodSandbox", { pod_sandbox_id: id });
          id = "";
        },
      ),
    async [Symbol.asyncDispose]() {
      if (id !== "") await call("RemovePodSandbox", { pod_sandbox_id: id }).catch(() => {});
      daemon.kill("SIGTERM");
      await daemon.exited;
      output([
        "sh",
        "-c",
        `rmdir /sys/fs/cgroup/pause-bench-pods-${process.pid} /sys/fs/cgroup/*/pause-bench-pods-${process.pid}`,
      ]);
    },
  };
}
