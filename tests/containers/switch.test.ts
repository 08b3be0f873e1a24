/**
 * README's way to switch, as a user goes it: its commands and the lines of examples/ as they stand, in a file that is
 * there already; and the way back. Each runtime runs as on a machine of its own, with its usual paths.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { images as contents } from "../../image/contents.ts";
import { unpacked } from "../helpers/debian.ts";
import { buildImages } from "../helpers/images.ts";
import { childrenOf, must, output, status, until } from "../helpers/process.ts";
import { dist, freestanding, reference, root } from "../helpers/programs.ts";
import { untilAtRest } from "../helpers/rest.ts";
import { type Call, connect, orphans } from "../helpers/runtimes.ts";
import { CC, missing, unobtainable } from "../helpers/tools.ts";
import { Workshop } from "../helpers/workshop.ts";

const NAME = contents.freestanding.reference;
const FORMER = "localhost/reference:1";
const APPLICATION = "localhost/application:1";

/** gRPC's status code. */
const NOT_FOUND = 5;

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

let containerd2 = "";
const how =
  process.getuid?.() === 0
    ? missing({
        ...CC,
        buildah: "buildah",
        skopeo: "skopeo",
        podman: "podman",
        "/usr/libexec/podman/catatonit": "catatonit",
        crun: "crun",
        runc: "runc",
        "/etc/containerd/config.toml": "containerd",
        "/etc/containers/policy.json": "golang-github-containers-common",
        "/bin/busybox": "busybox-static",
      }) ||
      unobtainable(buildImages) ||
      unobtainable(() => {
        // It wants no later glibc than Debian 12's.
        containerd2 = join(unpacked("sid", "containerd"), "usr/bin");
        must(join(containerd2, "containerd"), "--version");
      })
    : "run the tests as root";

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

describe.skipIf(how !== "")(`switch${how && ` (skipped: ${how})`}`, () => {
  const workshop = new Workshop();
  const { folder } = workshop;
  /** Runs README's command in the clone's folder. */
  const user = (command: string, ...env: readonly string[]) =>
    workshop.must("env", ...env, "sh", "-euc", `cd ${root}\n${command}`);

  beforeAll(async () => {
    await workshop.ready();
    // A machine of its own: its usual paths lie in the workshop's folder.
    for (const path of [
      "/run",
      "/var/lib/containerd",
      "/var/lib/containers",
      "/etc/containerd",
      "/etc/containers",
    ]) {
      mkdirSync(join(folder, path), { recursive: true });
      if (path.startsWith("/etc")) must("cp", "--archive", `${path}/.`, join(folder, path));
      mkdirSync(path, { recursive: true });
      workshop.must("mount", "--bind", join(folder, path), path);
    }
    workshop.build(
      FORMER,
      join(folder, "former.tar"),
      'FROM scratch\nCOPY pause /\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n',
      { pause: reference.executable },
    );
    workshop.build(
      APPLICATION,
      join(folder, "application.tar"),
      "FROM scratch\nCOPY bin /bin\nENV PATH=/bin\n",
      {
        "bin/busybox": "/bin/busybox",
        "bin/ip": "/bin/busybox",
      },
    );
  }, 300_000);
  afterAll(() => workshop[Symbol.dispose]());

  /** What a machine without CAP_SYS_RESOURCE and AppArmor needs besides. */
  const MACHINE = {
    2: `[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
disable_hugetlb_controller = true
disable_apparmor = true
`,
    3: `[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
disable_hugetlb_controller = true
disable_apparmor = true`,
  };

  const containerds = {
    "containerd 1.6, the file that Debian brings": {
      bin: () => "/usr/bin",
      version: 2,
      file: () => readFileSync("/etc/containerd/config.toml", "utf8"),
      row: "containerd 1.x",
    },
    "containerd 2, `containerd config default`": {
      bin: () => containerd2,
      version: 3,
      file: () => must(join(containerd2, "containerd"), "config", "default"),
      row: "containerd 2.x",
    },
    "containerd 2, a file of version = 2": {
      bin: () => containerd2,
      version: 2,
      file: () => readFileSync("/etc/containerd/config.toml", "utf8"),
      row: "containerd 1.x",
    },
  } as const;

  for (const [title, { bin, version, file, row }] of Object.entries(containerds))
    test(`${title}: there and back`, async () => {
      const env = [`PATH=${bin()}:${process.env.PATH}`];
      const configuration = join(folder, "/etc/containerd/config.toml");
      const { lines } = rows[row];
      // What the node has: its own file, which names its own sandbox image.
      const before = add(file(), `${MACHINE[version]}\n${lines.replaceAll(NAME, FORMER)}`);
      const socket = join(folder, "run/containerd/containerd.sock");
      const call: Call = (method, request) => connect(socket)(method, request);
      let daemon: Bun.Subprocess | undefined;
      const stop = async () => {
        daemon?.kill("SIGTERM");
        await daemon?.exited;
      };
      const restart = async (text: string) => {
        await stop();
        writeFileSync(configuration, text);
        daemon = Bun.spawn(workshop.inside("env", ...env, "containerd"), {
          stdio: ["ignore", "ignore", Bun.file(join(dist, "switch-containerd.log"))],
        });
        // It answers at all as soon as it is there, and with sense as soon as its parts are.
        const answer = () => call("PodSandboxStatus", { pod_sandbox_id: "none" }).catch(({ code }) => code);
        while ((await answer()) !== NOT_FOUND) expect(daemon.exitCode).toBeNull();
      };
      const pods: string[] = [];
      const pod = async (name: string) => {
        const security_context = { namespace_options: { network: "NODE", pid: "POD" } };
        const linux = { cgroup_parent: "/pause-test", security_context };
        const config = { metadata: { name, uid: name, namespace: "default" }, linux };
        const { pod_sandbox_id } = await call("RunPodSandbox", { config });
        pods.push(String(pod_sandbox_id));
        const { info } = await call("PodSandboxStatus", { pod_sandbox_id, verbose: true });
        return Number(JSON.parse((info as { info: string }).info).pid);
      };
      try {
        await restart(before);
        user(`ctr -n k8s.io images import ${join(folder, "former.tar")}`, ...env);
        const first = await pod("before");
        await expectFormer(first, reference.executable);

        user(rows["containerd 1.x"].load, ...env);
        await restart(add(before, lines));
        expect(status(first, "State")).not.toBe("");
        const second = await pod("switched");
        await expectOurs(second);
        expect(status(second, "Uid")).toStartWith("65535\t");

        await restart(before);
        expect(status(second, "State")).not.toBe("");
        await expectFormer(await pod("back"), reference.executable);
      } finally {
        for (const pod_sandbox_id of pods) {
          await call("StopPodSandbox", { pod_sandbox_id }).catch(() => {});
          await call("RemovePodSandbox", { pod_sandbox_id }).catch(() => {});
        }
        await stop();
        output(["sh", "-c", "rmdir /sys/fs/cgroup/pause-test /sys/fs/cgroup/*/pause-test"]);
        must("sh", "-c", `rm -rf ${folder}/var/lib/containerd/* ${folder}/run/containerd`);
      }
    }, 120_000);

  describe("podman and the storage that CRI-O shares with it", () => {
    const configuration = join(folder, "/etc/containers/containers.conf");
    const before = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "crun"
events_logger = "file"
`;
    /** PID 1 of a new pod, as a container in it sees it; then it is removed. */
    const withPod = async (options: readonly string[], look: (pid: number) => unknown) => {
      const create = ["pod", "create", "--name", "pod", "--share", "pid,ipc,net,uts", "--network=none"];
      workshop.must("podman", ...create, ...options);
      try {
        const run = ["run", "--detach", "--pod", "pod", "--name", "application", APPLICATION];
        workshop.must("podman", ...run, "busybox", "sleep", "10000");
        const infra = workshop
          .must("podman", "pod", "inspect", "--format", "{{.InfraContainerID}}", "pod")
          .trim();
        await look(Number(workshop.must("podman", "inspect", "--format", "{{.State.Pid}}", infra)));
      } finally {
        workshop.must("podman", "pod", "rm", "--force", "pod");
      }
    };

    beforeAll(() => {
      writeFileSync(
        join(folder, "/etc/containers/storage.conf"),
        '[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n',
      );
      writeFileSync(configuration, before);
      workshop.must("podman", "load", "--quiet", "--input", join(folder, "application.tar"));
    }, 60_000);

    test("CRI-O's file names what skopeo has put into the storage", async () => {
      user(rows["CRI-O"].load);
      const { crio } = Bun.TOML.parse(rows["CRI-O"].lines) as {
        crio: { image: { pause_image: string; pause_command: string } };
      };
      const { pause_image, pause_command } = crio.image;
      await withPod(["--infra-image", pause_image, "--infra-command", pause_command], expectOurs);
      workshop.must("podman", "rmi", pause_image);
    }, 60_000);

    test("examples/README's idle container holds a network for others, and ends on SIGTERM", async () => {
      user(rows.podman.load);
      workshop.must("podman", "tag", APPLICATION, "docker.io/library/busybox:1.36");
      const [hold = "", use = "", remove = ""] = read("examples/README.md").match(/^ {4}podman .*$/gm) ?? [];
      user(hold);
      const inspect = (what: string) =>
        workshop.must("podman", "inspect", "--format", `{{.State.${what}}}`, "holder").trim();
      const pid = inspect("Pid");
      await untilAtRest({ pid: Number(pid) }, freestanding);
      const ip = ["busybox", "ip", "address", "add", "192.0.2.1/32", "dev", "lo"];
      must("nsenter", "--target", pid, "--net", ...ip);
      expect(user(use)).toContain("192.0.2.1/32");
      workshop.must("podman", "stop", "--time", "60", "holder");
      expect(inspect("ExitCode")).toBe("0");
      user(remove);
    }, 60_000);

    test("podman: there and back", async () => {
      user(rows.podman.load);
      writeFileSync(configuration, add(before, rows.podman.lines));
      await withPod([], expectOurs);
      writeFileSync(configuration, before);
      await withPod([], (pid) => expectFormer(pid, "/usr/libexec/podman/catatonit"));
    }, 60_000);
  });
});
