/**
 * The images in podman and containerd of Debian 13, in a root file system of its own: between this machine's
 * (runtimes.test.ts) and the newest (node/node.test.ts).
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { expectPair, expectPodmanPair } from "../helpers/cases.ts";
import { Machine, machineOf, missingDebian } from "../helpers/debian.ts";
import { buildImages, images } from "../helpers/images.ts";
import { must, output, status, until } from "../helpers/process.ts";
import { dist, root } from "../helpers/programs.ts";
import { APPLICATION, connect, Sandboxes } from "../helpers/runtimes.ts";
import { unobtainable } from "../helpers/tools.ts";

const EXAMPLE = join(root, "examples/seccomp.json");
const how =
  process.getuid?.() === 0
    ? missingDebian({ mmdebstrap: "mmdebstrap", "/bin/busybox": "busybox-static" }) ||
      unobtainable(buildImages) ||
      unobtainable(() => machineOf("trixie"))
    : "run the tests as root";

describe.skipIf(how !== "")(`Debian 13${how && ` (skipped: ${how})`}`, () => {
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
      test(`podman, ${program.name}, ${profile}: a pod of two, 1,000 orphans and a killed exec`, () =>
        expectPodmanPair(
          (...args) => machine.inside(...podman(...args)),
          ["--infra-image", image, "--network=none", "--share", "pid,ipc,net,uts", ...options],
          program,
          1000,
        ));

  for (const { program, name: image, archive } of images)
    describe(`containerd, ${program.name}`, () => {
      let daemon: Bun.Subprocess;
      let sandboxes: Sandboxes;
      const name = `containerd-${program.name}`;

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
        sandboxes = new Sandboxes(connect(join(machine.folder, `${name}.sock`)), "/pause-test");
      }, 300_000);
      afterAll(async () => {
        await sandboxes?.removeAll();
        daemon.kill("SIGTERM");
        await daemon.exited;
        output(["sh", "-c", "rmdir /sys/fs/cgroup/pause-test /sys/fs/cgroup/*/pause-test"]);
      });

      test("a pod of two, 500 orphans and an ExecSync that takes too long", async () => {
        const pair = await sandboxes.run("pair", { network: "NODE" });
        await expectPair(pair, program, 500);
        await pair.remove();
        expect(status(pair.pid, "State")).toBe("");
      });
    });
});
