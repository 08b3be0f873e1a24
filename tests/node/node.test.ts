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
import { basename, join } from "node:path";
import { missingDebian } from "../helpers/debian.ts";
import { MESSAGE } from "../helpers/expect.ts";
import { buildImages, type Image, images } from "../helpers/images.ts";
import { childrenOf, must, output, proc, status, until } from "../helpers/process.ts";
import { freestanding, hosted, type Program, reference, root } from "../helpers/programs.ts";
import { untilAtRest } from "../helpers/rest.ts";
import { connect, defaultSeccomp, orphans, readJson, restrict } from "../helpers/runtimes.ts";
import { CC, unobtainable } from "../helpers/tools.ts";
import { boot, inside, type Results } from "./node.ts";

const APPLICATION = "localhost/application:1";
const PS = ["busybox", "ps", "-o", "pid,stat,args"];
const EXAMPLE = join(root, "examples/seccomp.json");
const read = (file: string) => readFileSync(join(root, file), "utf8");

const how =
  inside !== undefined
    ? ""
    : process.getuid?.() === 0
      ? missingDebian({ ...CC, buildah: "buildah", mmdebstrap: "mmdebstrap", mke2fs: "e2fsprogs" }) ||
        unobtainable(buildImages)
      : "run the tests as root";

/** What it came to on the node. */
let report: { results: Results; console: string };

/** A test on the node. */
function there(name: string, body: () => Promise<void> | void): void {
  const results = inside;
  if (results === undefined)
    test(name, () => {
      const error =
        report.results.get(name) ?? `It did not run: ${report.console} says how far the node came.`;
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

describe.skipIf(how !== "")(`node${how && ` (skipped: ${how})`}`, () => {
  if (inside === undefined)
    beforeAll(async () => {
      expect(reference.executable).not.toBe(""); // there is no compiler on the node
      report = await boot("sid", "tests/node/node.test.ts");
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
    must("systemctl", "start", "containerd");
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
    const seccomp = { profile_type: "RuntimeDefault" };
    const ctr = (...args: readonly string[]) => must("ctr", "-n", "k8s.io", ...args);
    /** It answers with sense as soon as its parts are there. */
    async function restart() {
      must("systemctl", "restart", "containerd");
      const answer = () => call("PodSandboxStatus", { pod_sandbox_id: "none" }).catch(({ code }) => code);
      while ((await answer()) !== 5) await Bun.sleep(100);
    }
    const sandboxes = new Set<string>();
    async function remove(pod_sandbox_id: string) {
      await call("StopPodSandbox", { pod_sandbox_id });
      await call("RemovePodSandbox", { pod_sandbox_id });
      sandboxes.delete(pod_sandbox_id);
    }
    async function run(config: object) {
      const { pod_sandbox_id } = await call("RunPodSandbox", { config });
      sandboxes.add(String(pod_sandbox_id));
      const { info } = await call("PodSandboxStatus", { pod_sandbox_id, verbose: true });
      return { id: String(pod_sandbox_id), pid: Number(JSON.parse((info as { info: string }).info).pid) };
    }
    /** A container of a sandbox: runs a command in it, in this many seconds. */
    async function start(pod_sandbox_id: string, sandbox_config: object, name: string, linux: object) {
      const { container_id } = await call("CreateContainer", {
        pod_sandbox_id,
        sandbox_config,
        config: {
          metadata: { name },
          image: { image: APPLICATION },
          command: ["busybox", "sleep", "10000"],
          linux,
        },
      });
      await call("StartContainer", { container_id });
      return async (timeout: number, ...cmd: string[]) =>
        String((await call("ExecSync", { container_id, cmd, timeout }, timeout + 5)).stdout);
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
    after(async () => {
      for (const id of sandboxes) await remove(id);
    });

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
            const linux = { security_context: { namespace_options: { pid: "POD" }, seccomp } };
            const metadata = { name: "pair", uid: program.name, namespace: "default" };
            const config = { metadata, linux: { ...linux, cgroup_parent: "pause-test.slice" } };
            const { id, pid } = await run(config);
            await untilAtRest({ pid }, program);
            expect(status(pid, "Uid")).toStartWith("65535\t");
            expect(status(pid, "Seccomp")).toBe("2");
            expect(proc(pid, "cgroup")).toStartWith("0::/pause.slice/pause-test.slice/");
            const one = await start(id, config, "one", linux);
            const two = await start(id, config, "two", linux);
            expect(await one(10, "busybox", "cat", "/proc/self/attr/current")).toContain("(enforce)");
            for (const exec of [one, two]) expect(await exec(10, ...PS)).toMatch(/^ *1 S +\/pause$/m);
            await two(90, "sh", "-c", orphans(300));
            // A probe that takes too long, with a child that outlives it.
            const probe = "(busybox sleep 2 >/dev/null 2>&1 &); exec busybox sleep 600";
            await expect(one(1, "sh", "-c", probe)).rejects.toThrow(/timeout|exceeded/i);
            await until("no child", () => childrenOf(pid).length === 0, { pid });
            await restart();
            expect(await two(10, ...PS)).toMatch(/^ *1 S +\/pause$/m);
            await two(10, "sh", "-c", orphans(10));
            await until("no child", () => childrenOf(pid).length === 0, { pid });
            await untilAtRest({ pid }, program);
            await remove(id);
            expect(status(pid, "State")).toBe("");
          },
        );

        there(`containerd, ${program.name}: a user namespace (hostUsers: false)`, async () => {
          const ids = [{ host_id: 1_000_000, container_id: 0, length: 65536 }];
          const namespace_options = { pid: "POD", userns_options: { mode: "POD", uids: ids, gids: ids } };
          const linux = { security_context: { namespace_options, seccomp } };
          const metadata = { name: "userns", uid: program.name, namespace: "default" };
          const config = { metadata, linux: { ...linux, cgroup_parent: "pause-test.slice" } };
          const { id, pid } = await run(config);
          await untilAtRest({ pid }, program);
          expect(status(pid, "Uid")).toStartWith(`${1_000_000 + 65535}\t`);
          const exec = await start(id, config, "one", linux);
          await exec(60, "sh", "-c", orphans(50));
          await until("no child", () => childrenOf(pid).length === 0, { pid });
          await remove(id);
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

    /** Runs a container in what a sandbox of Kubernetes has at the least, with these changes, and ends it. */
    async function run(
      runtime: string,
      program: Program,
      { noNewPrivileges = true, seccomp = defaultSeccomp(), mebibytes = 16, pids = 1 },
      look: (pid: number) => Promise<void> | void,
    ) {
      const bundle = mkdtempSync(join(folder, "bundle-"));
      const id = basename(bundle);
      must("sh", "-c", `cd ${bundle} && ${runtime} spec`);
      const rootfs = join(folder, program.name);
      const args = ["/pause"];
      restrict(join(bundle, "config.json"), { args, rootfs, noNewPrivileges, seccomp, pids, mebibytes });
      const container = Bun.spawn([runtime, "run", "--bundle", bundle, id], {
        stdio: ["ignore", "ignore", "pipe"],
      });
      try {
        let pid = 0;
        await until("a running container", () => {
          const { stdout, exitCode } = output([runtime, "state", id]);
          if (exitCode === 0 && JSON.parse(stdout).status === "running") pid = JSON.parse(stdout).pid;
          return pid !== 0 || container.exitCode !== null;
        });
        if (pid === 0) throw new Error(await new Response(container.stderr).text());
        await untilAtRest({ pid, stderr: container.stderr }, program);
        await look(pid);
        must(runtime, "kill", id, "TERM");
        expect(await container.exited).toBe(0);
        expect(await new Response(container.stderr).text()).toBe(MESSAGE);
      } finally {
        output([runtime, "delete", "--force", id]);
      }
    }

    const profiles = { "default seccomp": defaultSeccomp, "examples/seccomp.json": () => readJson(EXAMPLE) };
    // runc is in Go, which may start a thread until the execve; seldom, but without one it does not get there.
    for (const [runtime, pids] of Object.entries({ crun: 1, runc: 16 }))
      for (const { program } of tested)
        for (const [profile, seccomp] of Object.entries(profiles))
          for (const noNewPrivileges of [true, false])
            there(
              `${runtime}, ${program.name}, ${profile}, ${noNewPrivileges ? "no" : "with"} new privileges`,
              () =>
                run(runtime, program, { noNewPrivileges, seccomp: seccomp(), pids }, async (pid) => {
                  expect(status(pid, "Uid")).toStartWith("65535\t");
                  expect(status(pid, "CapEff")).toBe("0000000000000000");
                  expect(status(pid, "NoNewPrivs")).toBe(noNewPrivileges ? "1" : "0");
                  expect(status(pid, "Seccomp")).toBe("2");
                  must("nsenter", "--target", String(pid), "--pid", "--", "sh", "-c", orphans(50));
                  await until("no child", () => childrenOf(pid).length === 0, { pid });
                }),
            );

    for (const { program } of tested)
      for (const mebibytes of program === hosted ? [32, 8] : [1, 0.25])
        there(`crun, ${program.name}: ${mebibytes} MiB of memory, which it can see, are enough`, () =>
          run("crun", program, { mebibytes }, (pid) => {
            const limit = readFileSync(`/proc/${pid}/root/sys/fs/cgroup/memory.max`, "utf8");
            expect(Number(limit)).toBe(mebibytes * 2 ** 20);
          }),
        );
  });

  describe("podman", () => {
    const podman = (...args: readonly string[]) => must("podman", ...args).trim();
    before(() => {
      copyFileSync(join(root, "examples/podman/containers.conf"), "/etc/containers/containers.conf");
      // Debian's kernel of user-mode-linux has no tables of nftables for IP.
      mkdirSync("/etc/containers/containers.conf.d");
      writeFileSync("/etc/containers/containers.conf.d/node.conf", '[network]\nfirewall_driver = "none"\n');
      // What --userns=auto takes its users from (podman-run(1)).
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
          async () => {
            const create = ["pod", "create", "--name", "pod", "--memory=16m", "--share=+pid", ...infra];
            podman(...create, ...options);
            try {
              for (const name of ["one", "two"])
                podman(
                  "run",
                  "--detach",
                  "--pod=pod",
                  "--name",
                  name,
                  APPLICATION,
                  "busybox",
                  "sleep",
                  "10000",
                );
              const infraId = podman("pod", "inspect", "--format", "{{.InfraContainerID}}", "pod");
              const inspect = (what: string) => podman("inspect", "--format", `{{.State.${what}}}`, infraId);
              const pid = Number(inspect("Pid"));
              await untilAtRest({ pid }, program);
              expect(proc(pid, "attr/current")).toStartWith("containers-default-");
              const ps = (name: string) => podman("exec", name, ...PS);
              for (const name of ["one", "two"]) expect(ps(name)).toMatch(/^ *1 S +\/pause$/m);
              podman("exec", "two", "sh", "-c", orphans(300));
              const killed = Bun.spawn(["podman", "exec", "one", "busybox", "sleep", "600"], {
                stdio: ["ignore", "ignore", "ignore"],
              });
              await until("the exec", () => /sleep 600/.test(ps("two")));
              killed.kill("SIGKILL");
              await killed.exited;
              const left = /^ *(\d+) .*sleep 600$/m.exec(ps("two"))?.[1];
              podman("exec", "two", "sh", "-c", `kill -9 ${left}`);
              await until("no child", () => childrenOf(pid).length === 0, { pid });
              expect(ps("two")).not.toMatch(/ Z |sleep 600/);
              podman("pod", "stop", "--time", "60", "pod");
              expect(inspect("ExitCode")).toBe("0");
            } finally {
              output(["podman", "pod", "rm", "--force", "pod"]);
            }
          },
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
      // As for podman.
      writeFileSync("/etc/docker/daemon.json", JSON.stringify({ iptables: false, ip6tables: false }));
      must("systemctl", "start", "docker");
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
            docker("run", "--detach", "--name=pause", "--memory=16m", ...options, image);
            try {
              const inspect = (what: string) => docker("inspect", "--format", `{{.State.${what}}}`, "pause");
              const pid = Number(inspect("Pid"));
              await untilAtRest({ pid }, program);
              expect(proc(pid, "attr/current")).toBe("docker-default (enforce)\n");
              const share = ["pid", "ipc", "network"].map((what) => `--${what}=container:pause`);
              docker("run", "--rm", ...share, APPLICATION, "sh", "-c", orphans(300));
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
});
