/**
 * The images in newer runtimes than this machine's: Debian 13's, and runc and crun of the Debian after it. They run in
 * a root file system of their own.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { Machine, machineOf, missingDebian, type Suite } from "./helpers/debian.ts";
import { MESSAGE } from "./helpers/expect.ts";
import { buildImages, images } from "./helpers/images.ts";
import { childrenOf, must, output, status, until } from "./helpers/process.ts";
import { dist, root } from "./helpers/programs.ts";
import { untilAtRest } from "./helpers/rest.ts";
import {
  type Call,
  connect,
  defaultSeccomp,
  orphans,
  readJson,
  restrict,
  unpackImage,
} from "./helpers/runtimes.ts";
import { unobtainable } from "./helpers/tools.ts";

const APPLICATION = "localhost/application:1";
const EXAMPLE = join(root, "examples/seccomp.json");
const how =
  process.getuid?.() === 0
    ? missingDebian({ mmdebstrap: "mmdebstrap", "/bin/busybox": "busybox-static" }) ||
      unobtainable(buildImages)
    : "run the tests as root";

const ps = "busybox ps -o pid,stat,args".split(" ");
/** Nothing but PID 1, these containers' own processes and ps itself. */
const isTidy = (table: string) => !/ Z |sleep 0.1|sleep 600/.test(table);

describe.skipIf(how !== "")(`newer runtimes${how && ` (skipped: ${how})`}`, () => {
  /** A describe of what takes a suite, if that is to be had. */
  const describeWith = (suite: Suite, name: string, tests: () => void) => {
    const why = how || unobtainable(() => machineOf(suite));
    describe.skipIf(why !== "")(`${name}${why && ` (skipped: ${why})`}`, tests);
  };

  // Of sid, the newest there are: what a newer runtime calls behind the filter is seen here first.
  for (const suite of ["trixie", "sid"] satisfies Suite[])
    describeWith(suite, `${suite}'s crun and runc`, () => {
      let machine: Machine;
      beforeAll(async () => {
        machine = await Machine.start(suite);
        for (const image of images) unpackImage(image, join(machine.folder, image.program.name));
        must("chmod", "755", machine.folder);
      }, 300_000);
      afterAll(() => machine?.[Symbol.asyncDispose]());

      const profiles = {
        "default seccomp": () => defaultSeccomp(join(machine.root, "usr/share/containers/seccomp.json")),
        "examples/seccomp.json": () => readJson(EXAMPLE),
      };
      // runc is in Go, which may start a thread until the execve; seldom, but without one it does not get there.
      for (const [runtime, pids] of Object.entries({ crun: 1, runc: 16 }))
        for (const { program } of images)
          for (const [profile, seccomp] of Object.entries(profiles))
            for (const noNewPrivileges of [true, false]) {
              const privileges = `${noNewPrivileges ? "no" : "with"} new privileges`;
              test(`${runtime}, ${program.name}, ${profile}, ${privileges}`, async () => {
                const bundle = mkdtempSync(join(machine.folder, "bundle-"));
                const id = basename(bundle);
                const there = `/mnt/${id}`;
                machine.must("busybox", "sh", "-c", `cd ${there} && ${runtime} spec`);
                restrict(join(bundle, "config.json"), {
                  args: ["/pause"],
                  rootfs: `/mnt/${program.name}`,
                  noNewPrivileges,
                  seccomp: seccomp(),
                  pids,
                });
                const run = Bun.spawn(machine.inside(runtime, "run", "--bundle", there, id), {
                  stdio: ["ignore", "ignore", "pipe"],
                });
                try {
                  let pid = 0;
                  await until("a running container", () => {
                    const { stdout, exitCode } = output(machine.inside(runtime, "state", id));
                    if (exitCode === 0 && JSON.parse(stdout).status === "running")
                      pid = JSON.parse(stdout).pid;
                    return pid !== 0 || run.exitCode !== null;
                  });
                  if (pid === 0) throw new Error(await new Response(run.stderr).text());
                  await untilAtRest({ pid, stderr: run.stderr }, program);
                  expect(status(pid, "Uid")).toStartWith("65535\t");
                  expect(status(pid, "NoNewPrivs")).toBe(noNewPrivileges ? "1" : "0");
                  expect(status(pid, "Seccomp")).toBe("2");
                  must("nsenter", "--target", String(pid), "--pid", "--", "sh", "-c", orphans(50));
                  await until("no child", () => childrenOf(pid).length === 0, { pid });
                  machine.must(runtime, "kill", id, "TERM");
                  expect(await run.exited).toBe(0);
                  expect(await new Response(run.stderr).text()).toBe(MESSAGE);
                } finally {
                  output(machine.inside(runtime, "delete", "--force", id));
                }
              });
            }
    });

  describeWith("trixie", "Debian 13", () => {
    let machine: Machine;
    const podman = (...args: readonly string[]) => [
      ...[
        "busybox",
        "env",
        "CONTAINERS_CONF=/mnt/containers.conf",
        "PODMAN_IGNORE_CGROUPSV1_WARNING=1",
        "podman",
      ],
      ...["--root", "/mnt/root", "--runroot", "/mnt/run", "--storage-driver", "vfs", ...args],
    ];

    beforeAll(async () => {
      machine = await Machine.start("trixie");
      const { folder } = machine;
      // What a machine without CAP_SYS_RESOURCE and without systemd needs.
      writeFileSync(
        join(folder, "containers.conf"),
        '[engine]\ncgroup_manager = "cgroupfs"\nruntime = "crun"\nevents_logger = "file"\n' +
          '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n',
      );
      copyFileSync(EXAMPLE, join(folder, "seccomp.json"));
      // The containers beside the pause container have busybox only.
      mkdirSync(join(folder, "application/bin"), { recursive: true });
      copyFileSync("/bin/busybox", join(folder, "application/bin/busybox"));
      chmodSync(join(folder, "application/bin/busybox"), 0o755);
      symlinkSync("busybox", join(folder, "application/bin/sh"));
      must(
        "tar",
        "--create",
        "--file",
        join(folder, "rootfs.tar"),
        "--directory",
        join(folder, "application"),
        "bin",
      );
      machine.must(...podman("import", "--change", "ENV PATH=/bin", "/mnt/rootfs.tar", APPLICATION));
      const save = ["save", "--format", "oci-archive", "--output", "/mnt/application.tar", APPLICATION];
      machine.must(...podman(...save));
      for (const { archive } of images)
        machine.must(...podman("load", "--quiet", "--input", `/srv/${basename(archive)}`));
    }, 300_000);
    afterAll(() => machine?.[Symbol.asyncDispose]());

    for (const { program, name: image } of images)
      for (const [profile, options] of Object.entries({
        "default seccomp": [],
        "examples/seccomp.json": ["--security-opt=seccomp=/mnt/seccomp.json"],
      }))
        test(`podman, ${program.name}, ${profile}: a pod of two, 1,000 orphans and a killed exec`, async () => {
          const create = ["pod", "create", "--name", "pod", "--infra-image", image, "--network=none"];
          machine.must(...podman(...create, "--share", "pid,ipc,net,uts", ...options));
          try {
            for (const name of ["one", "two"]) {
              const run = ["run", "--detach", "--pod", "pod", "--name", name, APPLICATION];
              machine.must(...podman(...run, "busybox", "sleep", "10000"));
            }
            const inspect = (what: string, ...of: string[]) =>
              machine.must(...podman(...of, "inspect", "--format", `{{.${what}}}`, "pod")).trim();
            const infra = inspect("InfraContainerID", "pod");
            const inspectInfra = (what: string) =>
              machine.must(...podman("inspect", "--format", `{{.State.${what}}}`, infra)).trim();
            const pid = Number(inspectInfra("Pid"));
            await untilAtRest({ pid }, program);
            const table = (name: string) => machine.must(...podman("exec", name, ...ps));
            for (const name of ["one", "two"]) expect(table(name)).toMatch(/^ *1 S +\/pause$/m);

            machine.must(...podman("exec", "two", "sh", "-c", orphans(1000)));
            const killed = Bun.spawn(machine.inside(...podman("exec", "one", "busybox", "sleep", "600")), {
              stdio: ["ignore", "ignore", "ignore"],
            });
            await until("the exec", () => /sleep 600/.test(table("two")));
            killed.kill("SIGKILL");
            await killed.exited;
            const left = /^ *(\d+) .*sleep 600$/m.exec(table("two"))?.[1];
            machine.must(...podman("exec", "two", "sh", "-c", `kill -9 ${left}`));
            await until("no zombie and no orphan", () => isTidy(table("two")), { pid });
            expect(childrenOf(pid)).toEqual([]);
            machine.must(...podman("pod", "stop", "--time", "60", "pod"));
            expect(inspectInfra("ExitCode")).toBe("0");
          } finally {
            output(machine.inside(...podman("pod", "rm", "--force", "pod")));
          }
        });

    for (const { program, name: image, archive } of images)
      describe(`containerd, ${program.name}`, () => {
        let daemon: Bun.Subprocess;
        let call: Call;
        const name = `containerd-${program.name}`;
        const linux = { namespace_options: { network: "NODE", pid: "POD" } };
        const sandbox = {
          metadata: { name: "pair", uid: "pair", namespace: "default" },
          linux: { cgroup_parent: "/pause-test", security_context: linux },
        };

        beforeAll(async () => {
          const example = readFileSync(join(root, "examples/containerd-1.x/config.toml"), "utf8");
          const config = `root = "/mnt/${name}-root"
            state = "/mnt/${name}-state"
            ${example.replace(/(sandbox_image = ).*/, `$1"${image}"`)}
            restrict_oom_score_adj = true
            disable_hugetlb_controller = true
            disable_apparmor = true
            [plugins."io.containerd.grpc.v1.cri".containerd]
            snapshotter = "native"
            [grpc]
            address = "/mnt/${name}.sock"`;
          writeFileSync(join(machine.folder, `${name}.toml`), config);
          daemon = Bun.spawn(machine.inside("containerd", "--config", `/mnt/${name}.toml`), {
            stdio: ["ignore", "ignore", Bun.file(join(dist, `${name}.log`))],
          });
          const ctr = ["ctr", "--address", `/mnt/${name}.sock`, "--namespace", "k8s.io"];
          await until("containerd", () => output(machine.inside(...ctr, "version")).exitCode === 0);
          for (const file of [`/srv/${basename(archive)}`, "/mnt/application.tar"])
            machine.must(...ctr, "images", "import", "--snapshotter", "native", file);
          call = connect(join(machine.folder, `${name}.sock`));
        }, 300_000);
        afterAll(async () => {
          daemon.kill("SIGTERM");
          await daemon.exited;
          output(["sh", "-c", "rmdir /sys/fs/cgroup/pause-test /sys/fs/cgroup/*/pause-test"]);
        });

        test("a pod of two, 500 orphans and an ExecSync that takes too long", async () => {
          const { pod_sandbox_id } = await call("RunPodSandbox", { config: sandbox });
          let pid = 0;
          try {
            const { info } = await call("PodSandboxStatus", { pod_sandbox_id, verbose: true });
            pid = Number(JSON.parse((info as { info: string }).info).pid);
            await untilAtRest({ pid }, program);
            expect(status(pid, "Uid")).toStartWith("65535\t");
            const containers: string[] = [];
            for (const name of ["one", "two"]) {
              const { container_id } = await call("CreateContainer", {
                pod_sandbox_id,
                sandbox_config: sandbox,
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
              expect(await exec(container, 10, ...ps)).toMatch(/^ *1 S +\/pause$/m);
            await exec(two, 60, "sh", "-c", orphans(500));
            // With a child that outlives it.
            const probe = "(busybox sleep 2 >/dev/null 2>&1 &); exec busybox sleep 600";
            await expect(exec(one, 1, "sh", "-c", probe)).rejects.toThrow(/timeout|exceeded/i);
            await until("no child", () => childrenOf(pid).length === 0, { pid });
            expect(await exec(two, 10, ...ps)).not.toMatch(/ Z /);
          } finally {
            await call("StopPodSandbox", { pod_sandbox_id });
            await call("RemovePodSandbox", { pod_sandbox_id });
          }
          expect(status(pid, "State")).toBe("");
        });
      });
  });
});
