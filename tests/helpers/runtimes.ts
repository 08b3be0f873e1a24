/**
 * What containers are made of, for each of the runtimes.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { credentials, loadPackageDefinition, status } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { startDaemon } from "./daemons.ts";
import { application, readJson } from "./images.ts";
import type { Place } from "./places.ts";
import { must, output } from "./process.ts";
import { architecture, dist, root } from "./programs.ts";

/** The command line that runs a command where the runtime is, or the command of a runtime with these arguments. */
export type Inside = (...command: readonly string[]) => readonly string[];

/** A script for busybox's shell that leaves this many children to PID 1. */
export const orphans = (count: number) =>
  `i=0; while [ $i -lt ${count} ]; do (busybox sleep 0.1 &) >/dev/null 2>&1; i=$((i+1)); done`;

const SCMP_ARCH = { amd64: "SCMP_ARCH_X86_64", arm64: "SCMP_ARCH_AARCH64" };

/** The default profile of a runtime's package, as an OCI runtime takes it: without its conditions. */
export function defaultSeccomp(): object {
  interface Rule {
    includes?: { caps?: string[]; arches?: string[]; minKernel?: string };
    [field: string]: unknown;
  }
  const profile = readJson("/usr/share/containers/seccomp.json");
  const syscalls = (profile.syscalls as Rule[])
    .filter(
      ({ includes }) => !includes?.caps && (!includes?.arches || includes.arches.includes(architecture)),
    )
    .map(({ names, action, args, errnoRet }) => ({ names, action, args: args ?? [], errnoRet }));
  return { defaultAction: profile.defaultAction, architectures: [SCMP_ARCH[architecture]], syscalls };
}

export type Call = (method: string, request: object, seconds?: number) => Promise<Record<string, unknown>>;

/** The Container Runtime Interface behind this socket, which need not be there yet. */
export function connect(socket: string): Call {
  const definition = loadSync(join(root, "tests/helpers/cri.proto"), { keepCase: true, enums: String });
  // biome-ignore lint/suspicious/noExplicitAny: what a proto file defines has no type before it is loaded
  const { runtime } = loadPackageDefinition(definition) as any;
  const client = new runtime.v1.RuntimeService(`unix:${socket}`, credentials.createInsecure(), {
    "grpc.max_reconnect_backoff_ms": 100,
  });
  return (method, request, seconds = 60) =>
    new Promise((resolve, reject) =>
      client[method](
        request,
        { deadline: Date.now() + seconds * 1000 },
        (error: Error | null, response: Record<string, unknown>) =>
          error ? reject(error) : resolve(response),
      ),
    );
}

/** Whether containerd's parts are there too. It answers before they are, with another error. */
export const serves = (call: Call): Promise<boolean> =>
  call("PodSandboxStatus", { pod_sandbox_id: "none" }, 1).then(
    () => false,
    ({ code }) => code === status.NOT_FOUND,
  );

/** Runs a command in a container, in this many seconds at the most, and gives its standard output. */
export type Exec = (seconds: number, ...command: readonly string[]) => Promise<string>;

export interface Sandbox {
  /** Of the pause container. */
  readonly pid: number;
  /** Starts a container, which has busybox. */
  readonly start: (name: string) => Promise<Exec>;
  readonly remove: () => Promise<void>;
}

/** Removes a cgroup that is empty, of each hierarchy. */
export const removeCgroup = (path: string) =>
  output(["sh", "-c", `rmdir /sys/fs/cgroup${path} /sys/fs/cgroup/*${path}`]);

/** Sandboxes whose containers share the PID namespace. They go with their scope, and their cgroup with them. */
export class Sandboxes implements AsyncDisposable {
  readonly #sandboxes = new Set<Sandbox>();

  constructor(
    readonly call: Call,
    readonly cgroup: string,
  ) {}

  /** @param namespaces what NamespaceOption has besides; by default the network is the machine's: there is no CNI */
  async run(
    name: string,
    namespaces: object = { network: "NODE" },
    seccomp: "RuntimeDefault" | "Unconfined" = "RuntimeDefault",
  ): Promise<Sandbox> {
    const { call } = this;
    const namespace_options = { pid: "POD", ...namespaces };
    const linux = { security_context: { namespace_options, seccomp: { profile_type: seccomp } } };
    const sandbox_config = {
      metadata: { name, uid: name, namespace: "default" },
      linux: { ...linux, cgroup_parent: this.cgroup },
    };
    const { pod_sandbox_id } = await call("RunPodSandbox", { config: sandbox_config });
    const { info } = await call("PodSandboxStatus", { pod_sandbox_id, verbose: true });
    const sandbox: Sandbox = {
      pid: Number(JSON.parse((info as { info: string }).info).pid),
      start: async (name) => {
        const config = {
          metadata: { name },
          image: { image: application.name },
          command: ["busybox", "sleep", "10000"],
          linux,
        };
        const { container_id } = await call("CreateContainer", { pod_sandbox_id, sandbox_config, config });
        await call("StartContainer", { container_id });
        return async (timeout, ...cmd) =>
          String((await call("ExecSync", { container_id, cmd, timeout }, timeout + 5)).stdout);
      },
      remove: async () => {
        await call("StopPodSandbox", { pod_sandbox_id });
        await call("RemovePodSandbox", { pod_sandbox_id });
        this.#sandboxes.delete(sandbox);
      },
    };
    this.#sandboxes.add(sandbox);
    return sandbox;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const sandbox of this.#sandboxes) await sandbox.remove().catch(() => {});
    removeCgroup(this.cgroup);
  }
}

/** Writes a bundle's config.json: the output of the runtime's `spec`, with /pause and no terminal, then changed by `change`. */
export function specify(
  bundle: string,
  runtime: string,
  // biome-ignore lint/suspicious/noExplicitAny: JSON
  change: (config: any) => void,
): void {
  must("sh", "-c", 'cd "$0" && "$1" spec', bundle, runtime);
  const path = join(bundle, "config.json");
  const config = readJson(path);
  Object.assign(config.process, { args: ["/pause"], terminal: false });
  change(config);
  writeFileSync(path, JSON.stringify(config));
}

/** What containerd 1.x needs besides on a machine without CAP_SYS_RESOURCE and AppArmor: lines of its CRI's table. */
export const CONTAINERD = `restrict_oom_score_adj = true
disable_hugetlb_controller = true
disable_apparmor = true
`;

/** Where a containerd is, for `ctr`: its environment. */
export interface Containerd extends AsyncDisposable {
  readonly environment: Readonly<Record<string, string>>;
  readonly sandboxes: Sandboxes;
}

/**
 * Starts a place's containerd, version 1.x, which has these archives, with this image for its sandboxes.
 *
 * @param name of the folder in which it keeps all that it has
 */
export async function startContainerd(
  place: Place,
  name: string,
  { image = "none", archives = [] as readonly string[], snapshotter = "native", cgroup = "/pause-test" },
): Promise<Containerd> {
  const folder = join(place.folder, name);
  const there = place.path(folder);
  mkdirSync(folder);
  const example = readFileSync(join(root, "examples/containerd-1.x/config.toml"), "utf8");
  const config = `root = "${there}/root"
state = "${there}/state"
${example.replace(/(sandbox_image = ).*/, `$1"${image}"`)}${CONTAINERD}
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "${snapshotter}"
[grpc]
address = "${there}/socket"
`;
  writeFileSync(join(folder, "config.toml"), config);
  const call = connect(join(folder, "socket"));
  const daemon = place.inside("containerd", "--config", `${there}/config.toml`);
  await using stack = await startDaemon(daemon, join(dist, `${name}.log`), () => serves(call));
  const environment = { CONTAINERD_ADDRESS: `${there}/socket`, CONTAINERD_SNAPSHOTTER: snapshotter };
  for (const archive of archives)
    must(...place.with(environment, "ctr", "-n", "k8s.io", "images", "import", place.path(archive)));
  const sandboxes = stack.use(new Sandboxes(call, cgroup));
  return Object.assign(stack.move(), { environment, sandboxes });
}

/** containers.conf(5) of a machine without CAP_SYS_RESOURCE and without systemd, after lines that its [engine] has. */
export const CONTAINERS_CONF = `cgroup_manager = "cgroupfs"
runtime = "crun"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
`;

/** podman with a store of its own in a place, in a folder of this name. */
export function podmanOf(place: Place, name: string, { driver = "vfs", engine = "[engine]\n" } = {}): Inside {
  const folder = join(place.folder, name);
  const there = place.path(folder);
  mkdirSync(folder);
  writeFileSync(join(folder, "containers.conf"), engine + CONTAINERS_CONF);
  const variables = { CONTAINERS_CONF: `${there}/containers.conf`, PODMAN_IGNORE_CGROUPSV1_WARNING: "1" };
  const store = ["--root", `${there}/root`, "--runroot", `${there}/run`, "--storage-driver", driver];
  return (...args) => place.with(variables, "podman", ...store, ...args);
}

/** The root file system of an image that podman has, as this folder. */
export function rootOf(podman: Inside, image: string, folder: string): void {
  mkdirSync(folder);
  const container = must(...podman("create", image)).trim();
  must("sh", "-c", '"$@" | tar --extract --directory "$0"', folder, ...podman("export", container));
  must(...podman("rm", container));
}
