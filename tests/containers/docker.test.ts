/**
 * The images in Docker: each way in that image/README.md names, by version, and shared namespaces.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Kind } from "../../image/contents.ts";
import { Machine, machineOf, missingDebian } from "../helpers/debian.ts";
import { MESSAGE } from "../helpers/expect.ts";
import { buildImages, commands, type Image, images } from "../helpers/images.ts";
import { childrenOf, must, output, status, until } from "../helpers/process.ts";
import { architecture, dist, hosted, reference, root } from "../helpers/programs.ts";
import { type Registry, startRegistry } from "../helpers/registry.ts";
import { untilAtRest } from "../helpers/rest.ts";
import { orphans } from "../helpers/runtimes.ts";
import { CC, unobtainable } from "../helpers/tools.ts";
import { Workshop } from "../helpers/workshop.ts";

const APPLICATION = "application:1";
const PROFILE = "examples/seccomp.json";
const CONTAINERFILE = 'FROM scratch\nCOPY pause /\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n';
const how =
  process.getuid?.() === 0
    ? missingDebian({
        ...CC,
        buildah: "buildah",
        dockerd: "docker.io",
        "docker-registry": "docker-registry",
        mmdebstrap: "mmdebstrap",
        skopeo: "skopeo",
        "/bin/busybox": "busybox-static",
      }) ||
      unobtainable(buildImages) ||
      unobtainable(() => machineOf("trixie"))
    : "run the tests as root";

/** Where a dockerd runs. */
interface Place extends AsyncDisposable {
  /** A folder, as this machine and as the daemon sees it. */
  readonly folder: string;
  readonly there: string;
  /** dist/, as the daemon sees it. */
  readonly dist: string;
  readonly must: (...command: readonly string[]) => string;
  readonly inside: (...command: readonly string[]) => string[];
}

async function bookworm(): Promise<Place> {
  const workshop = new Workshop();
  await workshop.ready();
  workshop.must("mount", "-t", "tmpfs", "tmpfs", "/run");
  return {
    folder: workshop.folder,
    there: workshop.folder,
    dist,
    must: (...command) => workshop.must(...command),
    inside: (...command) => workshop.inside(...command),
    async [Symbol.asyncDispose]() {
      workshop[Symbol.dispose]();
    },
  };
}

async function trixie(): Promise<Place> {
  const machine = await Machine.start("trixie");
  return {
    folder: machine.folder,
    there: "/mnt",
    dist: "/srv",
    must: (...command) => machine.must(...command),
    inside: (...command) => machine.inside(...command),
    [Symbol.asyncDispose]: () => machine[Symbol.asyncDispose](),
  };
}

const DAEMONS = {
  "20.10": { start: bookworm, isClassic: true, isOld: true },
  "26.1": { start: trixie, isClassic: true, isOld: false },
  "26.1 with containerd's store": { start: trixie, isClassic: false, isOld: false },
};

describe.skipIf(how !== "")(`Docker${how && ` (skipped: ${how})`}`, () => {
  for (const [version, { start, isClassic, isOld }] of Object.entries(DAEMONS))
    describe(version, () => {
      let place: Place;
      let daemon: Bun.Subprocess;
      let registry: Registry;
      // The machine's own docker, if it has one, has another /run.
      const cli = (...args: readonly string[]) => ["/usr/bin/docker", ...args];
      const docker = (...args: readonly string[]) => place.must(...cli(...args));
      const inspect = (what: string, of: string) => docker("inspect", "--format", `{{${what}}}`, of).trim();
      const digestOf = (image: Image) =>
        JSON.parse(must("tar", "--extract", "--to-stdout", "--file", image.archive, "index.json"))
          .manifests[0].digest;

      beforeAll(async () => {
        place = await start();
        const { folder, there } = place;
        registry = await startRegistry(folder);
        writeFileSync(
          join(folder, "daemon.json"),
          JSON.stringify({ features: { "containerd-snapshotter": !isClassic } }),
        );
        daemon = Bun.spawn(
          place.inside(
            ...["dockerd", "--config-file", `${there}/daemon.json`, "--data-root", `${there}/docker`],
            ...["--storage-driver", isClassic ? "vfs" : "native", "--cgroup-parent", "/pause-test"],
            ...["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"],
          ),
          { stdio: ["ignore", "ignore", Bun.file(join(folder, "docker.log"))] },
        );
        await until(
          "dockerd",
          () => output(place.inside(...cli("version"))).exitCode === 0 || daemon.exitCode !== null,
          daemon,
        );
        if (daemon.exitCode !== null) throw new Error(readFileSync(join(folder, "docker.log"), "utf8"));
        place.must("/bin/busybox", "ln", "-s", place.dist, `${there}/dist`);
        copyFileSync(join(root, PROFILE), join(folder, "seccomp.json"));
        mkdirSync(join(folder, "application/bin"), { recursive: true });
        const busybox = join(folder, "application/bin/busybox");
        copyFileSync("/bin/busybox", busybox);
        chmodSync(busybox, 0o755);
        symlinkSync("busybox", join(folder, "application/bin/sh"));
        must("tar", "-C", join(folder, "application"), "-cf", join(folder, "application.tar"), "bin");
        docker("import", "--change", "ENV PATH=/bin", `${there}/application.tar`, APPLICATION);
        mkdirSync(join(folder, "reference"));
        copyFileSync(reference.executable, join(folder, "reference/pause"));
        writeFileSync(join(folder, "reference/Dockerfile"), CONTAINERFILE);
        place.must(
          ...["/bin/busybox", "env", "DOCKER_BUILDKIT=0"],
          ...cli("build", "--tag", "reference:1", `${there}/reference`),
        );
      }, 600_000);

      afterAll(async () => {
        daemon.kill("SIGTERM");
        await daemon.exited;
        await registry[Symbol.asyncDispose]();
        await place[Symbol.asyncDispose]();
        output(["sh", "-c", "rmdir /sys/fs/cgroup/pause-test /sys/fs/cgroup/*/pause-test"]);
      });

      for (const image of images) {
        const { program, name } = image;
        const kind = program.name as Kind;
        const readsNoZstd = isOld && kind === "hosted";
        const refusal = { exitCode: 1, stderr: expect.stringContaining("invalid tar header") };
        /** The commands of image/README.md under a heading, as on a machine of its own. */
        const follow = (heading: string) =>
          output(
            place.inside(
              ...["/bin/busybox", "env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "/bin/busybox", "sh", "-euc"],
              `cd ${place.there}\n${commands(heading, kind)}`,
            ),
          );

        test(`${kind}: docker load${readsNoZstd ? " fails, there is no zstd" : ""}`, () => {
          const result = follow("Docker");
          if (readsNoZstd) return expect(result).toMatchObject(refusal);
          // Docker's own store gets amd64's image of an archive, wherever it is.
          if (isClassic && architecture !== "amd64")
            return expect(result).toMatchObject({ stderr: expect.stringContaining("exec format error") });
          const stdout = `Loaded image: ${name}\n${program.version}`;
          expect(result).toMatchObject({ stderr: "", stdout, exitCode: 0 });
          docker("image", "rm", name);
        });

        test(`${kind}: a registry brings it${readsNoZstd ? " not, there is no zstd" : ", by its digest"}`, () => {
          const options = ["--all", "--quiet", "--dest-tls-verify=false"];
          const repository = `${registry.name}/pause`;
          must(
            "skopeo",
            "copy",
            ...options,
            `oci-archive:${image.archive}`,
            `docker://${repository}:${kind}`,
          );
          const pinned = `${repository}@${digestOf(image)}`;
          const pull = output(place.inside(...cli("pull", "--quiet", pinned)));
          if (readsNoZstd) return expect(pull).toMatchObject(refusal);
          expect(pull).toMatchObject({ exitCode: 0 });
          expect(inspect("index .RepoDigests 0", pinned)).toBe(pinned);
          expect(docker("run", "--rm", "--network=none", pinned, "-v")).toBe(program.version);
          docker("image", "rm", pinned);
        });

        test(`${kind}: skopeo brings it, by way of gzip`, () => {
          expect(follow("Docker without `docker load`")).toMatchObject({ exitCode: 0 });
          expect(docker("run", "--rm", "--network=none", name, "-v")).toBe(program.version);
        });
      }

      for (const [program, name] of [
        ...images.map((image) => [image.program, image.name] as const),
        [reference, "reference:1"] as const,
      ]) {
        const expectEnds = (container: string, message = MESSAGE) => {
          expect([
            inspect(".State.ExitCode", container),
            output(place.inside(...cli("logs", container))).stderr,
          ]).toEqual(["0", message]);
          docker("rm", container);
        };

        test(`${program.name}: shared pid, ipc and network: 300 orphans and a killed exec leave no zombie`, async () => {
          docker("run", "--detach", "--name", "pause", "--network=none", "--ipc=shareable", name);
          const pid = Number(inspect(".State.Pid", "pause"));
          await untilAtRest({ pid }, program);
          expect(status(pid, "Uid")).toStartWith("65535\t");
          const shared = ["pid", "ipc", "network"].map((namespace) => `--${namespace}=container:pause`);
          for (const container of ["one", "two"])
            docker(
              "run",
              "--detach",
              "--name",
              container,
              ...shared,
              APPLICATION,
              "busybox",
              "sleep",
              "10000",
            );
          const ps = () => docker("exec", "two", "busybox", "ps", "-o", "pid,stat,args");
          expect(ps()).toMatch(/^ *1 S +\/pause$/m);
          docker("exec", "one", "sh", "-c", orphans(300));
          const killed = Bun.spawn(place.inside(...cli("exec", "one", "busybox", "sleep", "600")), {
            stdio: ["ignore", "ignore", "ignore"],
          });
          await until("the exec", () => ps().includes("sleep 600"));
          killed.kill("SIGKILL");
          await killed.exited;
          docker("exec", "two", "sh", "-c", `kill -9 ${/^ *(\d+) .*sleep 600$/m.exec(ps())?.[1]}`);
          await until("no child", () => childrenOf(pid).length === 0, { pid });
          expect(ps()).not.toMatch(/ Z /);
          docker("stop", "--time", "60", "pause");
          expectEnds("pause");
          docker("rm", "--force", "one", "two");
        });

        for (const [what, options] of Object.entries<() => string[]>({
          "read-only, no capability, no new privileges": () => [
            "--read-only",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
          ],
          [PROFILE]: () => [`--security-opt=seccomp=${place.there}/seccomp.json`],
          "a terminal": () => ["--tty"],
        }))
          test(`${program.name}: ${what}: it ends by SIGINT, with 0`, async () => {
            docker("run", "--detach", "--name", "alone", "--network=none", ...options(), name);
            await untilAtRest({ pid: Number(inspect(".State.Pid", "alone")) }, program);
            docker("kill", "--signal", "INT", "alone");
            expect(docker("wait", "alone")).toBe("0\n");
            docker("rm", "alone");
          });

        test(`${program.name}: --init: it warns, and ends with 0`, async () => {
          docker("run", "--detach", "--init", "--name", "alone", "--network=none", name);
          const pid = Number(inspect(".State.Pid", "alone"));
          await until(
            "its rest",
            () => childrenOf(pid).some((child) => status(child, "SigCgt").endsWith("14002")),
            { pid },
          );
          docker("stop", "--time", "60", "alone");
          expectEnds("alone", `Warning: pause should be the first process\n${MESSAGE}`);
        });
      }

      if (isClassic) {
        const build = (...options: readonly string[]) => {
          const context = `${place.dist}/rootfs-freestanding`;
          const file = ["--file", `${place.there}/Containerfile`];
          return output(
            place.inside(
              ...["/bin/busybox", "env", "DOCKER_BUILDKIT=0"],
              ...cli("build", ...file, "--tag", "built", ...options, context),
            ),
          );
        };

        test("docker build by the classic builder: fails where it knows no architecture, works where it is told", () => {
          copyFileSync(join(root, "Containerfile"), join(place.folder, "Containerfile"));
          expect(build()).toMatchObject({
            exitCode: 1,
            stderr: expect.stringContaining("use-BuildKit-or---build-arg"),
          });
          expect(build("--build-arg", `TARGETARCH=${architecture}`)).toMatchObject({ exitCode: 0 });
          expect(docker("run", "--rm", "--network=none", "built", "-v")).toBe(hosted.version);
        });
      }
    });
});
