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
import {
  EXAMPLE,
  expectPair,
  expectPodmanPair,
  limits,
  PROFILES,
  restrictions,
} from "../helpers/containers.ts";
import { missingDebian } from "../helpers/debian.ts";
import { MESSAGE, needing } from "../helpers/expect.ts";
import { application, TESTED, tested } from "../helpers/images.ts";
import { childrenOf, must, output, proc, status, until } from "../helpers/process.ts";
import { architecture, freestanding, root } from "../helpers/programs.ts";
import { untilAtRest } from "../helpers/rest.ts";
import { connect, type Inside, orphans, rootOf, Sandboxes, serves } from "../helpers/runtimes.ts";
import { type Needed, ROOT, unobtainable } from "../helpers/tools.ts";
import { boot, fetchNode, inside, type Report } from "./node.ts";

const NEEDED: readonly Needed[] = [
  ROOT,
  () => (architecture === "amd64" ? "" : "user-mode-linux is for amd64"),
  ...TESTED,
  { mmdebstrap: "mmdebstrap", "/sbin/mke2fs": "e2fsprogs" },
  () => missingDebian({}) || unobtainable(fetchNode),
];
const node = needing(...(inside === undefined ? NEEDED : []));
const archives = [...tested.map(({ archive }) => archive), application.archive];

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
      report = await boot(import.meta.path);
    }, 1_800_000);

  before(() => {
    // Debian's kernel of user-mode-linux has no tables of nftables for IP, which Docker and podman want by default.
    writeFileSync("/etc/docker/daemon.json", JSON.stringify({ iptables: false, ip6tables: false }));
    mkdirSync("/etc/containers/containers.conf.d");
    writeFileSync("/etc/containers/containers.conf.d/node.conf", '[network]\nfirewall_driver = "none"\n');
    must("systemctl", "start", "multi-user.target");
    for (const archive of archives) must("podman", "load", "--quiet", "--input", archive);
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
    async function restart() {
      must("systemctl", "restart", "containerd");
      await until("containerd", () => serves(call));
    }

    before(async () => {
      mkdirSync("/etc/cni/net.d", { recursive: true });
      mkdirSync("/opt/cni", { recursive: true });
      symlinkSync("/usr/lib/cni", "/opt/cni/bin");
      const ipam = { type: "host-local", ranges: [[{ subnet: "10.85.0.0/16" }]] };
      const plugins = [{ type: "bridge", bridge: "cni0", isGateway: true, ipam }];
      const network = { cniVersion: "1.0.0", name: "node", plugins };
      writeFileSync("/etc/cni/net.d/10-node.conflist", JSON.stringify(network));
      // A pod's slice, with the limit that kubelet gives it.
      writeFileSync("/run/systemd/system/pause-test.slice", "[Slice]\nMemoryMax=16M\n");
      for (const archive of archives) ctr("images", "import", archive);
    });
    after(() => sandboxes[Symbol.asyncDispose]());

    for (const { program, name: image } of tested)
      describe(program.name, () => {
        before(async () => {
          const example = readFileSync(join(root, "examples/containerd-2.x/config.toml"), "utf8");
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

  const podman: Inside = (...args) => ["podman", ...args];

  describe("crun and runc", () => {
    const bundles = { folder: "", inside: (...command: readonly string[]) => command };
    before(() => {
      bundles.folder = mkdtempSync(join(tmpdir(), "pause-node-"));
      must("chmod", "755", bundles.folder);
      for (const { program, name } of tested) rootOf(podman, name, join(bundles.folder, program.name));
    });

    for (const { program } of tested) {
      for (const { name, run } of restrictions)
        there(`${program.name}, ${name}`, () => run(bundles, program));
      for (const { name, run } of limits(program)) there(`${program.name}, ${name}`, () => run(bundles));
    }
  });

  describe("podman", () => {
    const run = (...args: readonly string[]) => must(...podman(...args)).trim();
    before(() => {
      copyFileSync(join(root, "examples/podman/containers.conf"), "/etc/containers/containers.conf");
      // What --userns=auto takes its users from (podman-run(1)).
      must("useradd", "--system", "containers");
      for (const file of ["/etc/subuid", "/etc/subgid"]) appendFileSync(file, "containers:2000000:1048576\n");
    });

    for (const { program, name: image } of tested) {
      // The example's configuration names the freestanding image.
      const infra = program === freestanding ? [] : ["--infra-image", image];
      for (const [profile, options] of Object.entries(PROFILES))
        there(
          `podman, ${program.name}, ${profile}: a pod of two with 16 MiB, orphans and a killed exec`,
          () =>
            expectPodmanPair(
              podman,
              ["--memory=16m", "--share=+pid", ...infra, ...options(EXAMPLE)],
              program,
              100,
              (pid) => expect(proc(pid, "attr/current")).toStartWith("containers-default-"),
            ),
        );

      there(`podman, ${program.name}: run -v, stop with its message, --userns=auto`, async () => {
        expect(must(...podman("run", "--rm", image, "-v"))).toBe(program.version);
        run("run", "--detach", "--name", "alone", "--userns=auto", image);
        try {
          const pid = Number(run("inspect", "--format", "{{.State.Pid}}", "alone"));
          await untilAtRest({ pid }, program);
          expect(Number.parseInt(status(pid, "Uid"), 10)).toBeGreaterThanOrEqual(2_000_000);
          run("stop", "--time", "60", "alone");
          expect(run("inspect", "--format", "{{.State.ExitCode}}", "alone")).toBe("0");
          expect(output(podman("logs", "alone")).stderr).toBe(MESSAGE);
        } finally {
          output(podman("rm", "--force", "alone"));
        }
      });
    }
  });

  describe("Docker", () => {
    const docker = (...args: readonly string[]) => must("docker", ...args).trim();
    before(() => {
      for (const archive of archives) docker("load", "--input", archive);
    });

    for (const { program, name: image } of tested)
      for (const [profile, optionsOf] of Object.entries(PROFILES))
        there(
          `Docker, ${program.name}, ${profile}: -v, 16 MiB, what another container leaves, stop`,
          async () => {
            const options = optionsOf(EXAMPLE);
            expect(must("docker", "run", "--rm", ...options, image, "-v")).toBe(program.version);
            docker("run", "--detach", "--name=pause", "--memory=16m", "--ipc=shareable", ...options, image);
            try {
              const inspect = (what: string) => docker("inspect", "--format", `{{.State.${what}}}`, "pause");
              const pid = Number(inspect("Pid"));
              await untilAtRest({ pid }, program);
              expect(proc(pid, "attr/current")).toBe("docker-default (enforce)\n");
              const share = ["pid", "ipc", "network"].map((what) => `--${what}=container:pause`);
              docker("run", "--rm", ...share, application.name, "sh", "-c", orphans(100));
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
if (node.skip) node.test("node", () => {});
else describe("node", tests);
