/**
 * The images in the real runtimes: crun, runc, podman, and containerd by its Container Runtime Interface.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expectAtRest, expectPair, expectPodmanPair, limits, restrictions } from "../helpers/cases.ts";
import { MESSAGE } from "../helpers/expect.ts";
import { buildImages, type Image, images } from "../helpers/images.ts";
import { output, status, until } from "../helpers/process.ts";
import { dist, freestanding, reference, root } from "../helpers/programs.ts";
import { untilAtRest } from "../helpers/rest.ts";
import { APPLICATION, connect, Sandboxes } from "../helpers/runtimes.ts";
import { CC, missing, unobtainable } from "../helpers/tools.ts";
import { Workshop } from "../helpers/workshop.ts";

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
    const { folder } = workshop;
    beforeAll(() => {
      for (const image of tested) workshop.rootOf(image, join(folder, image.program.name));
    }, 300_000);

    const bundles = { folder, inside: workshop.inside.bind(workshop) };
    for (const { program } of tested) {
      for (const { name, run } of restrictions) test(`${program.name}, ${name}`, () => run(bundles, program));
      for (const { name, run } of limits(program)) test(`${program.name}, ${name}`, () => run(bundles));
    }
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
          // The example's configuration names the freestanding image.
          const infra = program === freestanding ? [] : ["--infra-image", image];
          // It is the pause container's profile alone: the others keep the default, without which they would not run.
          const create = ["--share", "pid,ipc,net,uts", "--network=none", ...infra, ...options];
          await expectPodmanPair((...args) => workshop.inside(...podman(...args)), create, program, 1000);
          expect(workshop.must(...podman("ps", "--all", "--quiet"))).toBe("");
        }, 120_000);
      }
  });

  describe.each(tested.map((image) => [image.program.name, image] as const))("containerd, %s", (_, image) => {
    const { program } = image;
    const folder = join(workshop.folder, `containerd-${program.name}`);
    const socket = join(folder, "containerd.sock");
    let daemon: Bun.Subprocess;
    let sandboxes: Sandboxes;

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

      sandboxes = new Sandboxes(connect(socket), "/pause-test");
    }, 300_000);
    afterAll(async () => {
      await sandboxes?.removeAll();
      daemon.kill("SIGTERM");
      await daemon.exited;
      output(["sh", "-c", "rmdir /sys/fs/cgroup/pause-test /sys/fs/cgroup/*/pause-test"]);
    });

    // There is no CNI here.
    const run = (name: string) => sandboxes.run(name, { network: "NODE" });

    test("a pod of two: PID 1 of both, orphans and a timed-out ExecSync leave no zombie", async () => {
      const pair = await run("pair");
      await expectPair(pair, program, 500);
      await pair.remove();
      expect(status(pair.pid, "State")).toBe("");
    }, 120_000);

    test("50 sandboxes at once come to rest, and go", async () => {
      const many = await Promise.all(Array.from({ length: 50 }, (_, index) => run(`many-${index}`)));
      for (const { pid } of many) await expectAtRest(pid, program);
      await Promise.all(many.map(({ remove }) => remove()));
    }, 300_000);
  });
});
