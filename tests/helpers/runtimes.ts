/**
 * What containers are made of, for each of the runtimes.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { credentials, loadPackageDefinition } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { architecture, root } from "./programs.ts";

/** An image that has busybox only. */
export const APPLICATION = "localhost/application:1";

export const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8"));

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

/** The Container Runtime Interface behind this socket. */
export function connect(socket: string): Call {
  const definition = loadSync(join(root, "tests/helpers/cri.proto"), { keepCase: true, enums: String });
  // biome-ignore lint/suspicious/noExplicitAny: what a proto file defines has no type before it is loaded
  const { runtime } = loadPackageDefinition(definition) as any;
  const client = new runtime.v1.RuntimeService(`unix:${socket}`, credentials.createInsecure());
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

/** Runs a command in a container, in this many seconds at the most, and gives its standard output. */
export type Exec = (seconds: number, ...command: readonly string[]) => Promise<string>;

export interface Sandbox {
  /** Of the pause container. */
  readonly pid: number;
  /** Starts a container, which has busybox. */
  readonly start: (name: string) => Promise<Exec>;
  readonly remove: () => Promise<void>;
}

/** Sandboxes whose containers share the PID namespace. */
export class Sandboxes {
  readonly #sandboxes = new Set<Sandbox>();

  constructor(
    readonly call: Call,
    readonly cgroup: string,
  ) {}

  /** @param namespaces what NamespaceOption has besides */
  async run(name: string, namespaces: object): Promise<Sandbox> {
    const { call } = this;
    const linux = {
      security_context: {
        namespace_options: { pid: "POD", ...namespaces },
        seccomp: { profile_type: "RuntimeDefault" },
      },
    };
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
          image: { image: APPLICATION },
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

  async removeAll(): Promise<void> {
    for (const sandbox of this.#sandboxes) await sandbox.remove().catch(() => {});
  }
}
