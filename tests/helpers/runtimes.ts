/**
 * What containers are made of, for each of the runtimes.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { credentials, loadPackageDefinition } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import type { Image } from "./images.ts";
import { must } from "./process.ts";
import { architecture, root } from "./programs.ts";

export const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8"));

/** A script for busybox's shell that leaves this many children to PID 1. */
export const orphans = (count: number) =>
  `i=0; while [ $i -lt ${count} ]; do (busybox sleep 0.1 &) >/dev/null 2>&1; i=$((i+1)); done`;

const SCMP_ARCH = { amd64: "SCMP_ARCH_X86_64", arm64: "SCMP_ARCH_AARCH64" };

/** The default profile of a runtime's package, as an OCI runtime takes it: without its conditions. */
export function defaultSeccomp(path = "/usr/share/containers/seccomp.json"): object {
  interface Rule {
    includes?: { caps?: string[]; arches?: string[]; minKernel?: string };
    [field: string]: unknown;
  }
  const profile = readJson(path);
  const syscalls = (profile.syscalls as Rule[])
    .filter(
      ({ includes }) => !includes?.caps && (!includes?.arches || includes.arches.includes(architecture)),
    )
    .map(({ names, action, args, errnoRet }) => ({ names, action, args: args ?? [], errnoRet }));
  return { defaultAction: profile.defaultAction, architectures: [SCMP_ARCH[architecture]], syscalls };
}

/** The files of an image for this machine, in this folder. */
export function unpackImage({ archive }: Image, folder: string): void {
  mkdirSync(folder, { recursive: true });
  const blob = (digest: string) => `blobs/sha256/${digest.replace("sha256:", "")}`;
  const json = (file: string) => JSON.parse(must("tar", "--extract", "--to-stdout", "--file", archive, file));
  const index = json(blob(json("index.json").manifests[0].digest));
  const { digest } = index.manifests.find(
    ({ platform }: { platform: { architecture: string } }) => platform.architecture === architecture,
  );
  for (const layer of json(blob(digest)).layers) {
    must("tar", "--extract", "--directory", folder, "--file", archive, blob(layer.digest));
    must("tar", "--extract", "--directory", folder, "--file", join(folder, blob(layer.digest)));
    must("rm", "-r", join(folder, "blobs"));
  }
}

/** Who runs a container, and with what. */
export interface Process {
  readonly args: readonly string[];
  readonly rootfs: string;
  readonly noNewPrivileges: boolean;
  readonly seccomp: object;
  readonly pids: number;
  /** Of memory. */
  readonly mebibytes?: number;
  /** The path of its cgroup; else the runtime chooses one. */
  readonly cgroupsPath?: string;
}

/** Makes of what `spec` wrote what a sandbox of Kubernetes has at the least. */
export function restrict(path: string, process: Process): void {
  const { args, rootfs, noNewPrivileges, seccomp, pids, mebibytes = 16, cgroupsPath } = process;
  const config = readJson(path);
  const user = { uid: 65535, gid: 65535 };
  Object.assign(config.process, { args, terminal: false, user, capabilities: {}, noNewPrivileges });
  config.root = { path: rootfs, readonly: true };
  const resources = { memory: { limit: mebibytes * 2 ** 20 }, pids: { limit: pids } };
  Object.assign(config.linux, { resources, seccomp, ...(cgroupsPath && { cgroupsPath }) });
  // As where cgroups are of version 2: its own are at the root of what it sees.
  config.linux.namespaces.push({ type: "cgroup" });
  writeFileSync(path, JSON.stringify(config));
}

export type Call = (method: string, request: object, seconds?: number) => Promise<Record<string, unknown>>;

/** The Container Runtime Interface behind this socket. */
export function connect(socket: string): Call {
  const definition = loadSync(join(root, "tests/cri.proto"), { keepCase: true, enums: String });
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
