/**
 * README's way to switch, as a user goes it: its commands and the lines of examples/ as they stand, in a file that is
 * there already; and the way back. Each runtime runs as on a machine of its own, with its usual paths.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { images as contents } from "../../image/contents.ts";
import { startDaemon } from "../helpers/daemons.ts";
import { unpacked } from "../helpers/debian.ts";
import { needing } from "../helpers/expect.ts";
import { application, referenceImage, TESTED } from "../helpers/images.ts";
import { ThisMachine } from "../helpers/places.ts";
import { childrenOf, must, output, status, until } from "../helpers/process.ts";
import { dist, freestanding, reference, root } from "../helpers/programs.ts";
import { untilAtRest } from "../helpers/rest.ts";
import { CONTAINERD, CONTAINERS_CONF, connect, orphans, Sandboxes, serves } from "../helpers/runtimes.ts";
import { ROOT, unobtainable } from "../helpers/tools.ts";

const NAME = contents.freestanding.reference;

const read = (file: string) => readFileSync(join(root, file), "utf8");
/** README's row of a runtime: the command that loads the image, and the file whose lines are added. */
function row(runtime: string): { load: string; file: string; lines: string } {
  const cells = new RegExp(`^\\| ${RegExp.escape(runtime)} \\| (.*) \\| .*?\\]\\((.*?)\\) \\|$`, "m").exec(
    read("README.md"),
  );
  const [, load = "", file = ""] = cells ?? [];
  return { load: /^`(.*)`$/.exec(load)?.[1] ?? load, file, lines: read(file) };
}
const rows = {
  "containerd 1.x": row("containerd 1.x"),
  "containerd 2.x": row("containerd 2.x"),
  "CRI-O": row("CRI-O"),
  podman: row("podman"),
};

/** Adds lines of TOML to a file as examples/README.md says: no table and no key of a table comes twice. */
function add(theirs: string, ours: string): string {
  const lines = theirs.split("\n");
  const plain = (line: string) => line.trim().replaceAll("'", '"');
  let table = -1;
  for (const line of ours.split("\n").filter((one) => one.trim() !== "")) {
    if (line.startsWith("[")) {
      table = lines.findIndex((one) => plain(one) === plain(line));
      if (table < 0) table = lines.push(line) - 1;
      continue;
    }
    const next = lines.findIndex((one, index) => index > table && one.trim().startsWith("["));
    const end = next < 0 ? lines.length : next;
    const key = `${line.split("=")[0]?.trim()} =`;
    const at = lines.findIndex((one, index) => index > table && index < end && one.trim().startsWith(key));
    if (at < 0) lines.splice(table + 1, 0, line);
    else lines[at] = line;
  }
  return lines.join("\n");
}

/** Where containerd 2 is. */
let containerd2 = "";
const switching = needing(
  ROOT,
  ...TESTED,
  {
    ...{ skopeo: "skopeo", podman: "podman", crun: "crun", runc: "runc" },
    "/usr/libexec/podman/catatonit": "catatonit",
    "/etc/containerd/config.toml": "containerd",
    "/etc/containers/policy.json": "golang-github-containers-common",
  },
  () =>
    unobtainable(() => {
      // It wants no later glibc than Debian 12's.
      containerd2 = join(unpacked("sid", "containerd"), "usr/bin");
      must(join(containerd2, "containerd"), "--version");
    }),
);

/** It is at rest, and is the freestanding build to the byte. */
async function expectOurs(pid: number): Promise<void> {
  await untilAtRest({ pid }, freestanding);
  expect(readFileSync(`/proc/${pid}/exe`)).toEqual(readFileSync(freestanding.executable));
  must("nsenter", "--target", String(pid), "--pid", "--", "sh", "-c", orphans(20));
  await until("no child", () => childrenOf(pid).length === 0, { pid });
}

/** It is what the node had before. */
const expectFormer = (pid: number, file: string) =>
  until(file, () => output(["cmp", file, `/proc/${pid}/exe`]).exitCode === 0, { pid });

switching.describe("switch", () => {
  const stack = new AsyncDisposableStack();
  let workshop: ThisMachine;
  /** Runs README's command in the clone's folder. */
  const user = (command: string, variables = {}) => must(...workshop.script(command, variables, root));
  const podman = (...args: readonly string[]) => workshop.must("podman", ...args).trim();
  /** A file of the machine: its usual paths lie in the workshop's folder. */
  const path = (of: string) => join(workshop.folder, of);

  beforeAll(async () => {
    workshop = stack.use(await new ThisMachine().ready());
    const folders = ["containerd", "containers"].flatMap((name) => [`/var/lib/${name}`, `/etc/${name}`]);
    for (const folder of ["/run", ...folders]) {
      mkdirSync(path(folder), { recursive: true });
      if (folder.startsWith("/etc")) must("cp", "--archive", `${folder}/.`, path(folder));
      mkdirSync(folder, { recursive: true });
      workshop.bind(path(folder), folder);
    }
  });
  afterAll(() => stack.disposeAsync());

  const containerds = {
    "containerd 1.6, the file that Debian brings": {
      bin: () => "/usr/bin",
      table: '[plugins."io.containerd.grpc.v1.cri"]',
      file: () => readFileSync("/etc/containerd/config.toml", "utf8"),
      row: "containerd 1.x",
    },
    "containerd 2, `containerd config default`": {
      bin: () => containerd2,
      table: "[plugins.'io.containerd.cri.v1.runtime']",
      file: () => must(join(containerd2, "containerd"), "config", "default"),
      row: "containerd 2.x",
    },
    "containerd 2, a file of version = 2": {
      bin: () => containerd2,
      table: '[plugins."io.containerd.grpc.v1.cri"]',
      file: () => readFileSync("/etc/containerd/config.toml", "utf8"),
      row: "containerd 1.x",
    },
  } as const;

  for (const [title, { bin, table, file, row }] of Object.entries(containerds))
    test(`${title}: there and back`, async () => {
      const variables = { PATH: `${bin()}:${process.env.PATH}` };
      const { lines } = rows[row];
      // What the node has: its own file, which names its own sandbox image.
      const before = add(file(), `${table}\n${CONTAINERD}${lines.replaceAll(NAME, referenceImage.name)}`);
      const call = connect(path("run/containerd/containerd.sock"));
      let daemon: AsyncDisposable | undefined;
      const restart = async (text: string) => {
        await daemon?.[Symbol.asyncDispose]();
        writeFileSync(path("etc/containerd/config.toml"), text);
        const command = workshop.with(variables, "containerd");
        daemon = await startDaemon(command, join(dist, "switch-containerd.log"), () => serves(call));
      };
      const sandboxes = new Sandboxes(call, "/pause-test");
      try {
        await restart(before);
        user(`ctr -n k8s.io images import ${referenceImage.archive}`, variables);
        const first = await sandboxes.run("before");
        await expectFormer(first.pid, reference.executable);

        user(rows["containerd 1.x"].load, variables);
        await restart(add(before, lines));
        expect(status(first.pid, "State")).not.toBe("");
        const second = await sandboxes.run("switched");
        await expectOurs(second.pid);
        expect(status(second.pid, "Uid")).toStartWith("65535\t");

        await restart(before);
        expect(status(second.pid, "State")).not.toBe("");
        await expectFormer((await sandboxes.run("back")).pid, reference.executable);
      } finally {
        await sandboxes[Symbol.asyncDispose]();
        await daemon?.[Symbol.asyncDispose]();
        must("sh", "-c", `rm -rf ${path("var/lib/containerd")}/* ${path("run/containerd")}`);
      }
    });

  describe("podman and the storage that CRI-O shares with it", () => {
    const before = `[engine]\n${CONTAINERS_CONF}`;
    const configure = (text: string) => writeFileSync(path("etc/containers/containers.conf"), text);
    /** PID 1 of a new pod, as a container in it sees it; then it is removed. */
    const withPod = async (options: readonly string[], look: (pid: number) => unknown) => {
      podman("pod", "create", "--name", "pod", "--share", "pid,ipc,net,uts", "--network=none", ...options);
      try {
        podman("run", "--detach", "--pod", "pod", application.name, "busybox", "sleep", "10000");
        const infra = podman("pod", "inspect", "--format", "{{.InfraContainerID}}", "pod");
        await look(Number(podman("inspect", "--format", "{{.State.Pid}}", infra)));
      } finally {
        podman("pod", "rm", "--force", "pod");
      }
    };

    beforeAll(() => {
      const storage =
        'driver = "overlay"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"';
      writeFileSync(path("etc/containers/storage.conf"), `[storage]\n${storage}\n`);
      configure(before);
      podman("load", "--quiet", "--input", application.archive);
    });

    test("CRI-O's file names what skopeo has put into the storage", async () => {
      user(rows["CRI-O"].load);
      const { crio } = Bun.TOML.parse(rows["CRI-O"].lines) as {
        crio: { image: { pause_image: string; pause_command: string } };
      };
      const { pause_image, pause_command } = crio.image;
      await withPod(["--infra-image", pause_image, "--infra-command", pause_command], expectOurs);
      podman("rmi", pause_image);
    });

    test("examples/README's idle container holds a network for others, and ends on SIGTERM", async () => {
      user(rows.podman.load);
      podman("tag", application.name, "docker.io/library/busybox:1.36");
      const [hold = "", use = "", remove = ""] = read("examples/README.md").match(/^ {4}podman .*$/gm) ?? [];
      user(hold);
      const inspect = (what: string) => podman("inspect", "--format", `{{.State.${what}}}`, "holder");
      const pid = inspect("Pid");
      await untilAtRest({ pid: Number(pid) }, freestanding);
      const ip = ["busybox", "ip", "address", "add", "192.0.2.1/32", "dev", "lo"];
      must("nsenter", "--target", pid, "--net", ...ip);
      expect(user(use)).toContain("192.0.2.1/32");
      podman("stop", "--time", "60", "holder");
      expect(inspect("ExitCode")).toBe("0");
      user(remove);
    });

    test("podman: there and back", async () => {
      user(rows.podman.load);
      configure(add(before, rows.podman.lines));
      await withPod([], expectOurs);
      configure(before);
      await withPod([], (pid) => expectFormer(pid, "/usr/libexec/podman/catatonit"));
    });
  });
});
