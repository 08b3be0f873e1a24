/**
 * The images on a node as users have it. These tests run twice: on this machine, where each waits for what it came to on
 * the node, and there.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expectPair, expectPodmanPair, limits, restrictions } from "../helpers/cases.ts";
import { missingDebian } from "../helpers/debian.ts";
import { MESSAGE } from "../helpers/expect.ts";
import { buildImages, type Image, images } from "../helpers/images.ts";
import { childrenOf, must, output, proc, status, until } from "../helpers/process.ts";
import { architecture, freestanding, reference, root } from "../helpers/programs.ts";
import { untilAtRest } from "../helpers/rest.ts";
import { APPLICATION, connect, orphans, Sandboxes } from "../helpers/runtimes.ts";
import { CC, unobtainable } from "../helpers/tools.ts";
import { boot, fetchNode, inside, type Report } from "./node.ts";

const EXAMPLE = join(root, "examples/seccomp.json");
const read = (file: string) => readFileSync(join(root, file), "utf8");

function missingNode(): string {
  if (inside !== undefined) return "";
  if (process.getuid?.() !== 0) return "run the tests as root";
  if (architecture !== "amd64") return "user-mode-linux is for amd64";
  const tools = { ...CC, buildah: "buildah", mmdebstrap: "mmdebstrap", "/sbin/mke2fs": "e2fsprogs" };
  return missingDebian(tools) || unobtainable(buildImages) || unobtainable(fetchNode);
}
const how = missingNode();

/** What it came to on the node. */
let report: Report;

/** A test on the node. */
function there(name: string, body: () => Promise<void> | void): void {
  const results = inside;
  if (results === undefined)
    test(name, () => {
      const error = report.errors.get(name) ?? `It did not run. ${report.end}`;
      if (error !== "") throw new Error(error);
    });
  else
    test(name, async () => {
      let error = "";
      try {
        await body();
      } catch (caught) {
        error = Bun.inspect(caught);
        throw caught;
      } finally {
        appendFileSync(results, `${JSON.stringify([name, error])}\n`);
      }
    });
}
const before = (body: () => Promise<void> | void) => {
  if (inside !== undefined) beforeAll(body, 300_000);
};
const after = (body: () => Promise<void> | void) => {
  if (inside !== undefined) afterAll(body, 60_000);
};

const tests = () => {
  if (inside === undefined)
    beforeAll(async () => {
      expect(reference.executable).not.toBe(""); // there is no compiler on the node
      report = await boot(import.meta.path);
    }, 1_800_000);

  const folder = inside === undefined ? "" : mkdtempSync(join(tmpdir(), "pause-node-"));
  const application = join(folder, "application.tar");
  /** The images that this project makes, and one of the C program. */
  const tested: readonly Image[] = [
    ...images,
    { program: reference, archive: join(folder, "reference.tar"), name: "localhost/reference:1" },
  ];

  /** Builds an image as its user does. */
  function build(name: string, archive: string, containerfile: string, executable: string) {
    const context = mkdtempSync(join(folder, "context-"));
    copyFileSync(executable, join(context, "executable"));
    must("chmod", "755", join(context, "executable"));
    writeFileSync(join(context, "Containerfile"), containerfile);
    must("podman", "build", "--quiet", "--tag", name, context);
    must("podman", "save", "--quiet", "--format", "docker-archive", "--output", archive, name);
  }

  before(() => {
    // Debian's kernel of user-mode-linux has no tables of nftables for IP, which Docker and podman want by default.
    writeFileSync("/etc/docker/daemon.json", JSON.stringify({ iptables: false, ip6tables: false }));
    mkdirSync("/etc/containers/containers.conf.d");
    writeFileSync("/etc/containers/containers.conf.d/node.conf", '[network]\nfirewall_driver = "none"\n');
    must("systemctl", "start", "multi-user.target");
    must("chmod", "755", folder);
    build(
      "localhost/reference:1",
      join(folder, "reference.tar"),
      'FROM scratch\nCOPY executable /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n',
      reference.executable,
    );
    build(
      APPLICATION,
      application,
      "FROM scratch\nCOPY executable /bin/busybox\nCOPY executable /bin/sh\nENV PATH=/bin\n",
      "/bin/busybox",
    );
    for (const { archive } of images) must("podman", "load", "-i", archive);
  });

  after(() => {
    writeFileSync(`${inside}.journal`, must("journalctl", "--no-hostname"));
  });

  there("it is one: systemd, cgroup v2 only, AppArmor", () => {
    expect(proc(1, "comm")).toBe("systemd\n");
    expect(must("stat", "--file-system", "--format=%T", "/sys/fs/cgroup")).toBe("cgroup2fs\n");
    expect(must("aa-status", "--enabled")).toBe("");
  });

  describe("containerd", () => {
    const call = connect("/run/containerd/containerd.sock");
    const sandboxes = new Sandboxes(call, "pause-test.slice");
    const ctr = (...args: readonly string[]) => must("ctr", "-n", "k8s.io", ...args);
    /** It answers with sense as soon as its parts are there. */
    async function restart() {
      must("systemctl", "restart", "containerd");
      const answer = () => call("PodSandboxStatus", { pod_sandbox_id: "none" }).catch(({ code }) => code);
      while ((await answer()) !== 5) await Bun.sleep(100);
    }

    before(async () => {
      mkdirSync("/etc/cni/net.d", { recursive: true });
      mkdirSync("/opt/cni", { recursive: true });
      symlinkSync("/usr/lib/cni", "/opt/cni/bin");
      writeFileSync(
        "/etc/cni/net.d/10-node.conflist",
        JSON.stringify({
          cniVersion: "1.0.0",
          name: "node",
          plugins: [
            {
              type: "bridge",
              bridge: "cni0",
              isGateway: true,
              ipam: { type: "host-local", ranges: [[{ subnet: "10.85.0.0/16" }]] },
            },
          ],
        }),
      );
      // A pod's slice, with the limit that kubelet gives it.
      writeFileSync("/run/systemd/system/pause-test.slice", "[Slice]\nMemoryMax=16M\n");
      for (const file of [...tested.map(({ archive }) => archive), application])
        ctr("images", "import", file);
    });
    after(() => sandboxes.removeAll());

    for (const { program, name: image } of tested)
      describe(program.name, () => {
        before(async () => {
          const example = read("examples/containerd-2.x/config.toml");
          writeFileSync(
            "/etc/containerd/config.toml",
            `${program === freestanding ? example : example.replace(/(sandbox = ).*/, `$1'${image}'`)}
            [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
            runtime_type = 'io.containerd.runc.v2'
            [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
            SystemdCgroup = true`,
          );
          await restart();
        });

        there(`containerd, ${program.name}: the image is pinned`, () => {
          expect(ctr("images", "list", `name==${image}`)).toContain("io.cri-containerd.pinned=pinned");
        });

        there(
          `containerd, ${program.name}: a pod of two with 16 MiB, orphans, a timed-out exec, a restart of containerd`,
          async () => {
            const { pid, ...sandbox } = await sandboxes.run("pair", {});
            const exec = await expectPair({ pid, ...sandbox }, program, 300);
            expect(proc(pid, "cgroup")).toStartWith("0::/pause.slice/pause-test.slice/");
            expect(await exec(10, "busybox", "cat", "/proc/self/attr/current")).toContain("(enforce)");
            await restart();
            await exec(10, "sh", "-c", orphans(10));
            await until("no child", () => childrenOf(pid).length === 0, { pid });
            await untilAtRest({ pid }, program);
            await sandbox.remove();
            expect(status(pid, "State")).toBe("");
          },
        );

        there(`containerd, ${program.name}: a user namespace (hostUsers: false)`, async () => {
          const ids = [{ host_id: 1_000_000, container_id: 0, length: 65536 }];
          const userns_options = { mode: "POD", uids: ids, gids: ids };
          const { pid, start, remove } = await sandboxes.run("userns", { userns_options });
          await untilAtRest({ pid }, program);
          expect(status(pid, "Uid")).toStartWith(`${1_000_000 + 65535}\t`);
          await (await start("one"))(60, "sh", "-c", orphans(50));
          await until("no child", () => childrenOf(pid).length === 0, { pid });
          await remove();
        });
      });
  });

  describe("crun and runc", () => {
    before(() => {
      for (const { program, name } of tested) {
        const rootfs = join(folder, program.name);
        mkdirSync(rootfs);
        must("sh", "-c", 'podman export "$(podman create "$0")" | tar -C "$1" -x', name, rootfs);
      }
    });

    const bundles = { folder, inside: (...command: readonly string[]) => command };
    for (const { program } of tested) {
      for (const { name, run } of restrictions)
        there(`${program.name}, ${name}`, () => run(bundles, program));
      for (const { name, run } of limits(program)) there(`${program.name}, ${name}`, () => run(bundles));
    }
  });

  describe("podman", () => {
    const podman = (...args: readonly string[]) => must("podman", ...args).trim();
    before(() => {
      copyFileSync(join(root, "examples/podman/containers.conf"), "/etc/containers/containers.conf");
      // What --userns=auto takes its users from (podman-run(1)).
      must("useradd", "--system", "containers");
      for (const file of ["/etc/subuid", "/etc/subgid"]) appendFileSync(file, "containers:2000000:1048576\n");
    });

    for (const { program, name: image } of tested) {
      // The example's configuration names the freestanding image.
      const infra = program === freestanding ? [] : ["--infra-image", image];
      for (const [profile, options] of Object.entries({
        "default seccomp": [],
        "examples/seccomp.json": [`--security-opt=seccomp=${EXAMPLE}`],
      }))
        there(
          `podman, ${program.name}, ${profile}: a pod of two with 16 MiB, orphans and a killed exec`,
          () =>
            expectPodmanPair(
              (...args) => ["podman", ...args],
              ["--memory=16m", "--share=+pid", ...infra, ...options],
              program,
              100,
              (pid) => expect(proc(pid, "attr/current")).toStartWith("containers-default-"),
            ),
        );

      there(`podman, ${program.name}: run -v, stop with its message, --userns=auto`, async () => {
        expect(must("podman", "run", "--rm", image, "-v")).toBe(program.version);
        podman("run", "--detach", "--name", "alone", "--userns=auto", image);
        try {
          const pid = Number(podman("inspect", "--format", "{{.State.Pid}}", "alone"));
          await untilAtRest({ pid }, program);
          expect(Number.parseInt(status(pid, "Uid"), 10)).toBeGreaterThanOrEqual(2_000_000);
          podman("stop", "--time", "60", "alone");
          expect(podman("inspect", "--format", "{{.State.ExitCode}}", "alone")).toBe("0");
          expect(output(["podman", "logs", "alone"]).stderr).toBe(MESSAGE);
        } finally {
          output(["podman", "rm", "--force", "alone"]);
        }
      });
    }
  });

  describe("Docker", () => {
    const docker = (...args: readonly string[]) => must("docker", ...args).trim();
    before(() => {
      for (const file of [...tested.map(({ archive }) => archive), application]) docker("load", "-i", file);
    });

    for (const { program, name: image } of tested)
      for (const [profile, options] of Object.entries({
        "default seccomp": [],
        "examples/seccomp.json": [`--security-opt=seccomp=${EXAMPLE}`],
      }))
        there(
          `Docker, ${program.name}, ${profile}: -v, 16 MiB, what another container leaves, stop`,
          async () => {
            expect(must("docker", "run", "--rm", ...options, image, "-v")).toBe(program.version);
            docker("run", "--detach", "--name=pause", "--memory=16m", "--ipc=shareable", ...options, image);
            try {
              const inspect = (what: string) => docker("inspect", "--format", `{{.State.${what}}}`, "pause");
              const pid = Number(inspect("Pid"));
              await untilAtRest({ pid }, program);
              expect(proc(pid, "attr/current")).toBe("docker-default (enforce)\n");
              const share = ["pid", "ipc", "network"].map((what) => `--${what}=container:pause`);
              docker("run", "--rm", ...share, APPLICATION, "sh", "-c", orphans(100));
              await until("no child", () => childrenOf(pid).length === 0, { pid });
              docker("stop", "--time", "60", "pause");
              expect(inspect("ExitCode")).toBe("0");
              expect(output(["docker", "logs", "pause"])).toMatchObject({ stdout: "", stderr: MESSAGE });
            } finally {
              output(["docker", "rm", "--force", "pause"]);
            }
          },
        );
  });
};

// One line, not one for each.
if (how === "") describe("node", tests);
else test.skipIf(true)(`node (skipped: ${how})`, () => {});
