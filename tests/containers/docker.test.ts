/**
 * The images in Docker: each way in that image/README.md names, by version, and shared namespaces.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Kind } from "../../image/contents.ts";
import { indexOf } from "../../image/layout.ts";
import { EXAMPLE, expectReaps } from "../helpers/containers.ts";
import { type Registry, startDaemon, startRegistry } from "../helpers/daemons.ts";
import { DebianMachine, machineNeeds } from "../helpers/debian.ts";
import { MESSAGE, needing, WARNING } from "../helpers/expect.ts";
import { application, commands, images, referenceImage, TESTED, tested } from "../helpers/images.ts";
import { type Place, ThisMachine } from "../helpers/places.ts";
import { childrenOf, must, output, status, until } from "../helpers/process.ts";
import { architecture, dist, hosted, root } from "../helpers/programs.ts";
import { untilAtRest } from "../helpers/rest.ts";
import { removeCgroup } from "../helpers/runtimes.ts";

async function bookworm(): Promise<Place> {
  const workshop = await new ThisMachine().ready();
  workshop.must("mount", "-t", "tmpfs", "tmpfs", "/run");
  return workshop;
}
const trixie = () => DebianMachine.start("trixie");

/** This machine's: 20.10 on Debian 12. */
const own = /version ([0-9]+\.[0-9]+)/.exec(output(["dockerd", "--version"]).stdout)?.[1] ?? "this machine's";
const DAEMONS = {
  [own]: { start: bookworm, isClassic: true, isOld: own === "20.10" },
  "26.1": { start: trixie, isClassic: true, isOld: false },
  "26.1 with containerd's store": { start: trixie, isClassic: false, isOld: false },
};
const TOOLS = { dockerd: "docker.io", "docker-registry": "docker-registry", skopeo: "skopeo" };

needing(...machineNeeds("trixie"), TOOLS, ...TESTED).describe("Docker", () => {
  for (const [version, { start, isClassic, isOld }] of Object.entries(DAEMONS))
    describe(version, () => {
      const stack = new AsyncDisposableStack();
      let place: Place;
      let registry: Registry;
      // The machine's own docker, if it has one, has another /run.
      const cli = (...args: readonly string[]) => place.inside("/usr/bin/docker", ...args);
      const docker = (...args: readonly string[]) => must(...cli(...args));
      const inspect = (what: string, of: string) => docker("inspect", "--format", `{{${what}}}`, of).trim();
      /** A file of the folder, as the daemon sees it. */
      const path = (file: string) => place.path(join(place.folder, file));

      beforeAll(async () => {
        place = stack.use(await start());
        const { folder } = place;
        registry = stack.use(await startRegistry(folder));
        stack.defer(() => void removeCgroup("/pause-test"));
        const features = { "containerd-snapshotter": !isClassic };
        writeFileSync(join(folder, "daemon.json"), JSON.stringify({ features }));
        const daemon = place.inside(
          ...["dockerd", "--config-file", path("daemon.json"), "--data-root", path("docker")],
          ...["--storage-driver", isClassic ? "vfs" : "native", "--cgroup-parent", "/pause-test"],
          ...["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"],
        );
        const answers = () => output(cli("version")).exitCode === 0;
        stack.use(await startDaemon(daemon, join(folder, "docker.log"), answers));
        symlinkSync(place.path(dist), join(folder, "dist"));
        copyFileSync(EXAMPLE, join(folder, "seccomp.json"));
        for (const archive of [referenceImage.archive, application.archive])
          docker("load", "--input", place.path(archive));
      });
      afterAll(() => stack.disposeAsync());

      for (const image of images) {
        const { program, name } = image;
        const kind = program.name as Kind;
        const readsNoZstd = isOld && kind === "hosted";
        const refusal = { exitCode: 1, stderr: expect.stringContaining("invalid tar header") };
        /** The commands of image/README.md under a heading, as on a machine of its own. */
        const follow = (heading: string) =>
          output(place.script(commands(heading, kind), { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" }));

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
          const repository = `${registry.name}/pause`;
          const copy = ["skopeo", "copy", "--all", "--quiet", "--dest-tls-verify=false"];
          must(...copy, `oci-archive:${image.archive}`, `docker://${repository}:${kind}`);
          const pinned = `${repository}@${indexOf(image.archive).digest}`;
          const pull = output(cli("pull", "--quiet", pinned));
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

      for (const { program, name } of tested) {
        const expectEnds = (container: string, stderr = MESSAGE) => {
          docker("stop", "--time", "60", container);
          expect(inspect(".State.ExitCode", container)).toBe("0");
          expect(output(cli("logs", container))).toMatchObject({ stderr });
          docker("rm", container);
        };

        test(`${program.name}: shared pid, ipc and network: 300 orphans and a killed exec leave no zombie`, async () => {
          docker("run", "--detach", "--name", "pause", "--network=none", "--ipc=shareable", name);
          const pid = Number(inspect(".State.Pid", "pause"));
          await untilAtRest({ pid }, program);
          expect(status(pid, "Uid")).toStartWith("65535\t");
          const shared = ["pid", "ipc", "network"].map((namespace) => `--${namespace}=container:pause`);
          const beside = ["run", "--detach", ...shared, "--name"];
          for (const container of ["one", "two"])
            docker(...beside, container, application.name, "busybox", "sleep", "10000");
          await expectReaps(cli, pid, program, 300);
          expectEnds("pause");
          docker("rm", "--force", "one", "two");
        });

        for (const [what, options] of Object.entries({
          "read-only, no capability, no new privileges": () =>
            "--read-only --cap-drop=ALL --security-opt=no-new-privileges".split(" "),
          "examples/seccomp.json": () => [`--security-opt=seccomp=${path("seccomp.json")}`],
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
          expectEnds("alone", WARNING + MESSAGE);
        });
      }

      if (!isClassic) return;
      test("docker build by the classic builder: fails where it knows no architecture, works where it is told", () => {
        copyFileSync(join(root, "Containerfile"), join(place.folder, "Containerfile"));
        const context = place.path(join(dist, "rootfs-freestanding"));
        const build = (...options: readonly string[]) => {
          const named = ["--file", path("Containerfile"), "--tag", "built", ...options];
          return output(place.with({ DOCKER_BUILDKIT: "0" }, "/usr/bin/docker", "build", ...named, context));
        };
        expect(build()).toMatchObject({
          exitCode: 1,
          stderr: expect.stringContaining("use-BuildKit-or---build-arg"),
        });
        expect(build("--build-arg", `TARGETARCH=${architecture}`)).toMatchObject({ exitCode: 0 });
        expect(docker("run", "--rm", "--network=none", "built", "-v")).toBe(hosted.version);
      });
    });
});
