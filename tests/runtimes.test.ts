/**
 * The images in the real runtimes: crun, runc, podman, and containerd by its Container Runtime Interface.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { MESSAGE } from "./helpers/expect.ts";
import { buildImages, type Image, images } from "./helpers/images.ts";
import { childrenOf, must, output, status, until } from "./helpers/process.ts";
import { dist, freestanding, hosted, type Program, reference, root } from "./helpers/programs.ts";
import { untilAtRest } from "./helpers/rest.ts";
import { type Call, connect, defaultSeccomp, orphans, readJson, restrict } from "./helpers/runtimes.ts";
import { CC, missing, unobtainable } from "./helpers/tools.ts";
import { Workshop } from "./helpers/workshop.ts";

const APPLICATION = "localhost/application:1";
const EXAMPLE = join(root, "examples/seccomp.json");
const how =
  process.getuid?.() === 0
    ? missing({
        ...CC,
        buildah: "buildah",
        podman: "podman",
        crun: "crun",
        runc: "runc",
        containerd: "containerd",
        "/usr/share/containers/seccomp.json": "golang-github-containers-common",
        "/bin/busybox": "busybox-static",
      }) || unobtainable(buildImages)
    : "run the tests as root";

/** It is at rest, with no heap of a runtime's. */
async function expectAtRest(pid: number, program: Program): Promise<void> {
  await untilAtRest({ pid }, program);
  expect(Number.parseInt(status(pid, "RssAnon"), 10)).toBeLessThan(300);
}

describe.skipIf(how !== "")(`runtimes${how && ` (skipped: ${how})`}`, () => {
  const workshop = new Workshop();
  const applicationArchive = join(workshop.folder, "application.tar");
  /** The images that this project makes, and one of the C program. */
  const tested: readonly Image[] = [
    ...images,
    { program: reference, archive: join(workshop.folder, "reference.tar"), name: "localhost/reference:1" },
  ];

  beforeAll(async () => {
    await workshop.ready();
    const c = tested.find(({ program }) => program === reference);
    workshop.build(
      c?.name ?? "",
      c?.archive ?? "",
      'FROM scratch\nCOPY pause /\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n',
      { pause: reference.executable },
    );
    workshop.build(APPLICATION, applicationArchive, "FROM scratch\nCOPY bin /bin\nENV PATH=/bin\n", {
      "bin/busybox": "/bin/busybox",
      "bin/sh": "/bin/busybox",
    });
  }, 900_000);
  afterAll(() => workshop[Symbol.dispose]());

  describe("crun and runc", () => {
    const roots = new Map<Program, string>();
    beforeAll(() => {
      for (const image of tested) roots.set(image.program, workshop.rootOf(image));
    }, 300_000);

    const started: string[][] = [];
    afterAll(() => {
      for (const [runtime = "", id = ""] of started)
        output(workshop.inside(runtime, "delete", "--force", id));
    });

    /** A running container in what a sandbox of Kubernetes has at the least, with these changes. */
    async function start(
      runtime: string,
      program: Program,
      { noNewPrivileges = true, seccomp = defaultSeccomp(), mebibytes = 16, pids = 1 },
    ) {
      const bundle = mkdtempSync(join(workshop.folder, "bundle-"));
      const id = basename(bundle);
      must("sh", "-c", `cd ${bundle} && ${runtime} spec`);
      restrict(join(bundle, "config.json"), {
        args: ["/pause"],
        rootfs: roots.get(program) ?? "",
        noNewPrivileges,
        seccomp,
        pids,
        mebibytes,
        cgroupsPath: `/pause-test-${id}`,
      });

      started.push([runtime, id]);
      const run = Bun.spawn(workshop.inside(runtime, "run", "--bundle", bundle, id), {
        stderr: "pipe",
        stdout: "pipe",
      });
      let pid = 0;
      await until("a running container", () => {
        const { stdout, exitCode } = output(workshop.inside(runtime, "state", id));
        if (exitCode === 0 && JSON.parse(stdout).status === "running") pid = JSON.parse(stdout).pid;
        return pid !== 0 || run.exitCode !== null;
      });
      if (pid === 0) throw new Error(await new Response(run.stderr).text());
      const terminate = async () => {
        workshop.must(runtime, "kill", id, "TERM");
        expect(await run.exited).toBe(0);
        expect(await new Response(run.stderr).text()).toBe(MESSAGE);
      };
      return { pid, terminate };
    }

    // An OCI runtime takes the example as it is.
    const profiles = { "default seccomp": defaultSeccomp, "examples/seccomp.json": () => readJson(EXAMPLE) };
    // runc is in Go, which may start a thread until the execve; seldom, but without one it does not get there.
    for (const { program } of tested)
      for (const [runtime, pids] of Object.entries({ crun: 1, runc: 16 }))
        for (const [profile, seccomp] of Object.entries(profiles))
          for (const noNewPrivileges of [true, false]) {
            const unprivileged = `no capabilities, ${noNewPrivileges ? "" : "not "}no new privileges`;
            test(`${program.name}, ${runtime}: read-only, ${unprivileged}, ${profile}, 16 MiB, pids.max ${pids}`, async () => {
              const { pid, terminate } = await start(runtime, program, {
                noNewPrivileges,
                seccomp: seccomp(),
                pids,
              });
              await expectAtRest(pid, program);
              expect(status(pid, "Uid")).toStartWith("65535\t");
              expect(status(pid, "CapEff")).toBe("0000000000000000");
              expect(status(pid, "NoNewPrivs")).toBe(noNewPrivileges ? "1" : "0");
              expect(status(pid, "Seccomp")).toBe("2");
              must("nsenter", "--target", String(pid), "--pid", "--", "sh", "-c", orphans(50));
              await until("no child", () => childrenOf(pid).length === 0, { pid });
              await terminate();
            });
          }

    for (const { program } of tested)
      for (const mebibytes of program === hosted ? [64, 32, 24, 16, 8, 6] : [16, 1, 0.25])
        test(`${program.name}, crun: ${mebibytes} MiB of memory, which it can see, are enough`, async () => {
          const { pid, terminate } = await start("crun", program, { mebibytes });
          const seen = "sys/fs/cgroup/memory/memory.limit_in_bytes sys/fs/cgroup/memory.max";
          const limit = output(["sh", "-c", `cd /proc/${pid}/root && cat ${seen} 2>/dev/null`]).stdout;
          expect(Number(limit)).toBe(mebibytes * 2 ** 20);
          await expectAtRest(pid, program);
          await terminate();
        });
  });

  describe("podman", () => {
    const conf = join(workshop.folder, "containers.conf");
    const store = workshop.store("podman");
    const podman = (...args: readonly string[]) => [
      "env",
      `CONTAINERS_CONF=${conf}`,
      "podman",
      ...store,
      ...args,
    ];

    beforeAll(() => {
      // The example, and what a machine without CAP_SYS_RESOURCE and without systemd needs.
      const example = readFileSync(join(root, "examples/podman/containers.conf"), "utf8");
      const machine = 'cgroup_manager = "cgroupfs"\nruntime = "crun"\nevents_logger = "file"\n';
      const limits = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n';
      writeFileSync(conf, example + machine + limits);
      for (const archive of [...tested.map(({ archive }) => archive), applicationArchive])
        workshop.must(...podman("load", "--quiet", "--input", archive));
    }, 300_000);

    afterAll(() => {
      output(workshop.inside(...podman("pod", "rm", "--force", "--all")));
    });

    const profiles = {
      "default seccomp": [],
      "examples/seccomp.json": [`--security-opt=seccomp=${EXAMPLE}`],
    };
    for (const { program, name: image } of tested)
      for (const [profile, options] of Object.entries(profiles)) {
        test(`${program.name}: run and stop, ${profile}: it ends by SIGTERM, with 0`, async () => {
          const run = ["run", "--detach", "--name", "alone", "--network=none"];
          workshop.must(...podman(...run, ...options, image));
          // A PID 1 that has no handler yet does not notice it (LIMITS.md).
          const pid = Number(workshop.must(...podman("inspect", "--format", "{{.State.Pid}}", "alone")));
          await untilAtRest({ pid }, program);
          workshop.must(...podman("stop", "--time", "60", "alone"));
          expect(workshop.must(...podman("inspect", "--format", "{{.State.ExitCode}}", "alone"))).toBe("0\n");
          expect(output(workshop.inside(...podman("logs", "alone"))).stderr).toBe(MESSAGE);
          workshop.must(...podman("rm", "alone"));
        });

        test(`${program.name}: run IMAGE -v, ${profile}: prints the version`, () => {
          const run = ["run", "--rm", "--network=none", ...options, image, "-v"];
          expect(workshop.must(...podman(...run))).toBe(program.version);
        });

        test(`${program.name}: a pod of two, ${profile}: PID 1 of both, 1,000 orphans and a killed exec leave no zombie`, async () => {
          // It is the pause container's profile alone: the others keep the default, without which they would not run.
          const create = ["pod", "create", "--name", "pod", "--share", "pid,ipc,net,uts", "--network=none"];
          // The example's configuration names the freestanding image.
          const infra = program === freestanding ? [] : ["--infra-image", image];
          workshop.must(...podman(...create, ...infra, ...options));
          for (const name of ["one", "two"])
            workshop.must(
              ...podman(
                "run",
                "--detach",
                "--pod",
                "pod",
                "--name",
                name,
                APPLICATION,
                "busybox",
                "sleep",
                "10000",
              ),
            );
          const ps = (name: string) =>
            workshop.must(...podman("exec", name, "busybox", "ps", "-o", "pid,stat,args"));
          for (const name of ["one", "two"]) expect(ps(name)).toMatch(/^ *1 S +\/pause$/m);
          const pid = Number(workshop.must(...podman("inspect", "--format", "{{.State.Pid}}", "one")));
          const infraId = workshop
            .must(...podman("pod", "inspect", "--format", "{{.InfraContainerID}}", "pod"))
            .trim();
          const first = Number(workshop.must(...podman("inspect", "--format", "{{.State.Pid}}", infraId)));
          await expectAtRest(first, program);
          expect(status(pid, "State")).not.toBe("");

          workshop.must(...podman("exec", "two", "sh", "-c", orphans(1000)));
          const killed = Bun.spawn(workshop.inside(...podman("exec", "one", "busybox", "sleep", "600")), {
            stdout: "ignore",
          });
          await until("the exec", () => /sleep 600/.test(ps("two")));
          killed.kill("SIGKILL");
          await killed.exited;
          const left = /^ *(\d+) .*sleep 600$/m.exec(ps("two"))?.[1];
          workshop.must(...podman("exec", "two", "sh", "-c", `kill -9 ${left}`));
          await until(
            "no zombie and no orphan",
            () => !/ Z |sleep 0.1|sleep 600/.test(ps("two").replace(/^.*ps -o.*$/m, "")),
          );
          expect(childrenOf(first)).toEqual([]);

          output(workshop.inside(...podman("pod", "stop", "--time", "60", "pod")));
          expect(workshop.must(...podman("inspect", "--format", "{{.State.ExitCode}}", infraId))).toBe("0\n");
          workshop.must(...podman("pod", "rm", "--force", "pod"));
          expect(workshop.must(...podman("ps", "--all", "--quiet"))).toBe("");
        }, 120_000);
      }
  });

  describe.each(tested.map((image) => [image.program.name, image] as const))("containerd, %s", (_, image) => {
    const { program } = image;
    const folder = join(workshop.folder, `containerd-${program.name}`);
    const socket = join(folder, "containerd.sock");
    let daemon: Bun.Subprocess;
    let call: Call;

    beforeAll(async () => {
      mkdirSync(folder);
      const example = readFileSync(join(root, "examples/containerd-1.x/config.toml"), "utf8").replace(
        /(sandbox_image = ).*/,
        `$1"${image.name}"`,
      );
      const machine = `
        restrict_oom_score_adj = true
        disable_hugetlb_controller = true
        disable_apparmor = true
        [plugins."io.containerd.grpc.v1.cri".containerd]
        snapshotter = "native"
        [grpc]
        address = "${socket}"`;
      const paths = `root = "${folder}/root"\nstate = "${folder}/state"\n`;
      writeFileSync(join(folder, "config.toml"), paths + example + machine);
      daemon = Bun.spawn(workshop.inside("containerd", "--config", join(folder, "config.toml")), {
        stdio: ["ignore", "ignore", Bun.file(join(dist, `containerd-${program.name}.log`))],
      });
      const ctr = (...args: readonly string[]) => [
        "ctr",
        "--address",
        socket,
        "--namespace",
        "k8s.io",
        ...args,
      ];
      await until("containerd", () => output(workshop.inside(...ctr("version"))).exitCode === 0, daemon);
      const load = ["images", "import", "--snapshotter", "native"];
      for (const archive of [image.archive, applicationArchive]) workshop.must(...ctr(...load, archive));

      call = connect(socket);
    }, 300_000);
    afterAll(async () => {
      for (const id of sandboxes) await remove(id).catch(() => {});
      daemon.kill("SIGTERM");
      await daemon.exited;
      output(["sh", "-c", "rmdir /sys/fs/cgroup/pause-test /sys/fs/cgroup/*/pause-test"]);
    });

    const linux = { namespace_options: { network: "NODE", pid: "POD" } };
    const sandboxConfig = (name: string) => ({
      metadata: { name, uid: name, namespace: "default" },
      linux: { cgroup_parent: "/pause-test", security_context: linux },
    });
    const sandboxes = new Set<string>();
    const run = async (name: string) => {
      const { pod_sandbox_id } = await call("RunPodSandbox", { config: sandboxConfig(name) });
      sandboxes.add(String(pod_sandbox_id));
      return String(pod_sandbox_id);
    };
    const pidOf = async (pod_sandbox_id: string) => {
      const { info } = await call("PodSandboxStatus", { pod_sandbox_id, verbose: true });
      return Number(JSON.parse((info as { info: string }).info).pid);
    };
    const remove = async (pod_sandbox_id: string) => {
      await call("StopPodSandbox", { pod_sandbox_id });
      await call("RemovePodSandbox", { pod_sandbox_id });
      sandboxes.delete(pod_sandbox_id);
    };

    test("a pod of two: PID 1 of both, orphans and a timed-out ExecSync leave no zombie", async () => {
      const id = await run("pair");
      const containers: string[] = [];
      for (const name of ["one", "two"]) {
        const { container_id } = await call("CreateContainer", {
          pod_sandbox_id: id,
          sandbox_config: sandboxConfig("pair"),
          config: {
            metadata: { name },
            image: { image: APPLICATION },
            command: ["busybox", "sleep", "10000"],
            linux: { security_context: linux },
          },
        });
        await call("StartContainer", { container_id });
        containers.push(String(container_id));
      }
      const exec = async (container_id: string | undefined, timeout: number, ...cmd: string[]) =>
        String((await call("ExecSync", { container_id, cmd, timeout }, timeout + 5)).stdout);
      const [one, two] = containers;
      for (const container of containers)
        expect(await exec(container, 10, "busybox", "ps", "-o", "pid,stat,args")).toMatch(
          /^ *1 S +\/pause$/m,
        );
      const pid = await pidOf(id);
      await expectAtRest(pid, program);

      await exec(two, 60, "sh", "-c", orphans(500));
      // A probe that takes too long, with a child that outlives it. containerd answers at once that it did, but the
      // http2 of Bun does not always pass on an answer that has no body: then the call's own deadline ends it.
      const probe = "(busybox sleep 2 >/dev/null 2>&1 &); exec busybox sleep 600";
      await expect(exec(one, 1, "sh", "-c", probe)).rejects.toThrow(/timeout|exceeded/i);
      await until("no child", () => childrenOf(pid).length === 0, { pid });
      expect(await exec(two, 10, "busybox", "ps", "-o", "pid,stat,args")).not.toMatch(/ Z /);
      await remove(id);
      expect(status(pid, "State")).toBe("");
    }, 120_000);

    test("50 sandboxes at once come to rest, and go", async () => {
      const ids = await Promise.all(Array.from({ length: 50 }, (_, index) => run(`many-${index}`)));
      for (const id of ids) await expectAtRest(await pidOf(id), program);
      await Promise.all(ids.map(remove));
    }, 300_000);
  });
});
