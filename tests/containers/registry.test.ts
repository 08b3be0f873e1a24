/**
 * The images on their way through a registry: image/README.md's commands, as they stand there.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { images } from "../../image/contents.ts";
import { version } from "../../package.json" with { type: "json" };
import { Machine, machineOf, missingDebian } from "../helpers/debian.ts";
import { buildImages, commands } from "../helpers/images.ts";
import { must, output, until } from "../helpers/process.ts";
import { dist } from "../helpers/programs.ts";
import { type Registry, startRegistry } from "../helpers/registry.ts";
import { unobtainable } from "../helpers/tools.ts";
import { Workshop } from "../helpers/workshop.ts";

const how =
  process.getuid?.() === 0
    ? missingDebian({
        buildah: "buildah",
        skopeo: "skopeo",
        "docker-registry": "docker-registry",
        podman: "podman",
        crun: "crun",
        runc: "runc",
        containerd: "containerd",
        mmdebstrap: "mmdebstrap",
        "/bin/busybox": "busybox-static",
        "/etc/containers/registries.conf.d": "golang-github-containers-common",
      }) ||
      unobtainable(buildImages) ||
      unobtainable(() => machineOf("trixie"))
    : "run the tests as root";

describe.skipIf(how !== "")(`registry${how && ` (skipped: ${how})`}`, () => {
  const workshop = new Workshop();
  let machine: Machine;
  const busybox = "/bin/busybox";
  let daemon: Bun.Subprocess;
  let server: Registry;
  let registry = "";
  const variables: string[] = [];
  /** Runs a script where the registry's name is known, and everything is as on a machine of its own. */
  const sh = (script: string) =>
    workshop.must("env", ...variables, "sh", "-euc", `cd ${workshop.folder}\n${script}`);

  beforeAll(async () => {
    await workshop.ready();
    const { folder } = workshop;
    const file = (name: string, ...lines: readonly string[]) => {
      writeFileSync(join(folder, name), lines.map((line) => `${line}\n`).join(""));
      return join(folder, name);
    };
    server = await startRegistry(folder);
    registry = server.name;

    // The registry has no TLS, which skopeo and podman have to be told.
    mkdirSync(join(folder, "registries.conf.d"));
    file("registries.conf.d/registry.conf", "[[registry]]", `location = "${registry}"`, "insecure = true");
    workshop.must("mount", "--bind", join(folder, "registries.conf.d"), "/etc/containers/registries.conf.d");
    const socket = join(folder, "containerd.sock");
    const paths = [`root = "${folder}/containerd-root"`, `state = "${folder}/containerd-state"`];
    const grpc = ["[grpc]", `address = "${socket}"`];
    const cri = 'disabled_plugins = ["io.containerd.grpc.v1.cri"]';
    const toml = file("containerd.toml", "version = 2", ...paths, cri, ...grpc);
    daemon = Bun.spawn(workshop.inside("containerd", "--config", toml), {
      stdio: ["ignore", "ignore", Bun.file(join(folder, "containerd.log"))],
    });
    const containers = ['default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]'];
    const engine = ['cgroup_manager = "cgroupfs"', 'runtime = "crun"', 'events_logger = "file"'];
    const conf = file("containers.conf", "[containers]", ...containers, "[engine]", ...engine);
    const store = [`graphroot = "${folder}/podman-root"`, `runroot = "${folder}/podman-run"`];
    const storageConf = file("storage.conf", "[storage]", 'driver = "vfs"', ...store);
    variables.push(
      `REGISTRY=${registry}`,
      `CONTAINERD_ADDRESS=${socket}`,
      "CONTAINERD_SNAPSHOTTER=native",
      `CONTAINERS_CONF=${conf}`,
      `CONTAINERS_STORAGE_CONF=${storageConf}`,
    );
    workshop.must("ln", "-s", dist, join(folder, "dist"));

    machine = await Machine.start("trixie");
    const there = "/etc/containers/registries.conf.d";
    must("cp", "-r", join(folder, "registries.conf.d"), machine.folder);
    machine.must(busybox, "mount", "--bind", "/mnt/registries.conf.d", there);
    machine.must(busybox, "ln", "-s", "/srv", "/mnt/dist");
    await until("containerd", () => output(workshop.inside("ctr", "-a", socket, "version")).exitCode === 0);
  }, 900_000);

  afterAll(async () => {
    daemon.kill("SIGTERM");
    await daemon.exited;
    await server[Symbol.asyncDispose]();
    await machine[Symbol.asyncDispose]();
    workshop[Symbol.dispose]();
  });

  for (const kind of ["freestanding", "hosted"] as const)
    describe(kind, () => {
      const tag = version + (kind === "freestanding" ? "-freestanding" : "");
      /** The digest of the index in the archive. */
      const archived = () => {
        const tar = join(dist, images[kind].archive);
        return JSON.parse(output(["tar", "--extract", "--to-stdout", "--file", tar, "index.json"]).stdout)
          .manifests[0].digest;
      };
      const names = (by: "tag" | "digest") =>
        `${registry}/pause${by === "tag" ? `:${tag}` : `@${archived()}`}`;
      /** What containerd and podman have under a name. */
      const digests = (name: string) => ({
        containerd: sh(`ctr -n k8s.io images list name==${name}`).split("\n")[1]?.split(/ +/)[2],
        podman: sh(`podman image inspect --format '{{.Digest}} {{join .RepoDigests " "}}' ${name}`),
      });
      const forget = () => {
        sh(
          "podman image rm --all --force; ctr -n k8s.io images list -q | xargs ctr -n k8s.io images rm --sync",
        );
      };

      const expectPushed = (repository: string) => {
        const raw = sh(`skopeo inspect --raw docker://${repository}/pause:${tag}`);
        expect(`sha256:${createHash("sha256").update(raw).digest("hex")}`).toBe(archived());
      };

      test("pushed: the registry has the archive's index, byte for byte", () => {
        sh(commands("Push it to a registry", kind));
        expectPushed(registry);
      });

      test("pushed by trixie's skopeo: the same", () => {
        const repository = `${registry}/trixie`;
        const script = `cd /mnt\n${commands("Push it to a registry", kind)}`;
        machine.must(busybox, "env", `REGISTRY=${repository}`, busybox, "sh", "-euc", script);
        expectPushed(repository);
      });

      test.each(["tag", "digest"] as const)("pulled by %s: same digest, this machine's platform", (by) => {
        if (by === "tag") sh(`podman pull ${names(by)}; ctr -n k8s.io images pull ${names(by)}`);
        else sh(commands("Pin it by digest", kind));
        const { containerd, podman } = digests(names(by));
        expect(containerd).toBe(archived());
        expect(podman).toContain(archived());
        expect(sh(`podman run --rm --network=none ${names(by)} -v`)).toBe(`init.ts ${version}\n`);
        expect(sh(`ctr -n k8s.io run --rm ${names(by)} version /pause -v`)).toBe(`init.ts ${version}\n`);
        sh(`podman run --detach --name rests --network=none ${names(by)}
          pid=$(podman inspect --format '{{.State.Pid}}' rests); until grep -q 14002$ /proc/$pid/status; do :; done
          podman stop --time 60 rests`);
        expect(sh("podman inspect --format '{{.State.ExitCode}}' rests")).toBe("0\n");
        sh("podman rm rests");
        forget();
      }, 300_000);

      test("CRI-O's way: the archive goes into the storage that it shares with podman", () => {
        const { archive, reference } = images[kind];
        // README's command; the storage is podman's here too, which storage.conf or its options would name.
        const storage = workshop.store("podman");
        const [, rootFolder = "", , runFolder = "", , driver = ""] = storage;
        const target = `containers-storage:[${driver}@${rootFolder}+${runFolder}]${reference}`;
        workshop.must("skopeo", "copy", "--quiet", `oci-archive:${join(dist, archive)}`, target);
        const list = ["podman", ...storage, "images", "--format", "{{.Repository}}:{{.Tag}}"];
        expect(workshop.must(...list)).toContain(reference);
        workshop.must("podman", ...storage, "rmi", reference);
      });

      test("each platform is found under the one name", () => {
        for (const architecture of images[kind].architectures) {
          sh(`podman pull --arch ${architecture} ${names("tag")}`);
          const found = sh(`podman image inspect --format '{{.Architecture}}' ${names("tag")}`);
          expect(found).toBe(`${architecture}\n`);
        }
        forget();
      }, 300_000);

      test("mirrored by an archive: same digest, under the registry's name", () => {
        sh(commands("Bring it to nodes without a registry", kind));
        const { containerd, podman } = digests(names("tag"));
        expect(containerd).toBe(archived());
        expect(podman).toContain(archived());
        expect(sh(`podman run --rm --pull=never --network=none ${names("tag")} -v`)).toBe(
          `init.ts ${version}\n`,
        );
        forget();
      }, 300_000);
    });
});
