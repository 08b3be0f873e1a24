/**
 * The images on their way through a registry: image/README.md's commands, as they stand there.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { images, type Kind } from "../image/contents.ts";
import { version } from "../package.json" with { type: "json" };
import { buildImages } from "./helpers/images.ts";
import { output, until } from "./helpers/process.ts";
import { dist, root } from "./helpers/programs.ts";
import { missing } from "./helpers/tools.ts";
import { Workshop } from "./helpers/workshop.ts";

const how =
  process.getuid?.() === 0
    ? missing({
        buildah: "buildah",
        skopeo: "skopeo",
        "docker-registry": "docker-registry",
        podman: "podman",
        crun: "crun",
        runc: "runc",
        containerd: "containerd",
        "/etc/containers/registries.conf.d": "golang-github-containers-common",
      })
    : "run the tests as root";

const PLATFORMS: Record<Kind, string[]> = {
  freestanding: ["amd64", "arm", "arm64", "loong64", "ppc64le", "riscv64", "s390x"],
  hosted: ["amd64", "arm64"],
};

/** The commands under a heading of image/README.md, which are for the freestanding image, for an image. */
const commands = (heading: string, kind: Kind) => {
  const readme = readFileSync(join(root, "image/README.md"), "utf8");
  const section = readme.split(/^## /m).find((one) => one.startsWith(`${heading}\n`)) ?? "";
  const lines = section.split("\n").filter((line) => line.startsWith("    "));
  expect(lines).not.toEqual([]);
  return lines.join("\n").replaceAll("-freestanding", kind === "hosted" ? "" : "-freestanding");
};

describe.skipIf(how !== "")(`registry${how && ` (skipped: ${how})`}`, () => {
  const workshop = new Workshop();
  const daemons: Bun.Subprocess[] = [];
  /** Starts a daemon; what it writes goes into a new file: an older one would have an older port. */
  const start = (log: string, ...command: readonly string[]) => {
    const file = join(workshop.folder, log);
    writeFileSync(file, "");
    daemons.push(Bun.spawn(workshop.inside(...command), { stdio: ["ignore", "ignore", Bun.file(file)] }));
    return () => readFileSync(file, "utf8");
  };
  let registry = "";
  const variables: string[] = [];
  /** Runs a script where the registry's name is known, and everything is as on a machine of its own. */
  const sh = (script: string) =>
    workshop.must("env", ...variables, "sh", "-euc", `cd ${workshop.folder}\n${script}`);

  beforeAll(async () => {
    buildImages();
    await workshop.ready();
    const { folder } = workshop;
    const file = (name: string, ...lines: readonly string[]) => {
      writeFileSync(join(folder, name), lines.map((line) => `${line}\n`).join(""));
      return join(folder, name);
    };
    const storage = `{ filesystem: { rootdirectory: ${folder}/registry } }`;
    const yaml = file("registry.yml", "version: 0.1", `storage: ${storage}`, "http: { addr: 127.0.0.1:0 }");
    const log = start("registry.log", "docker-registry", "serve", yaml);
    await until("the registry listens", () => {
      registry = /listening on (127\.0\.0\.1:\d+)"/.exec(log())?.[1] ?? "";
      return registry !== "" || daemons[0]?.exitCode !== null;
    });
    if (registry === "") throw new Error(log());

    // The registry has no TLS, which skopeo and podman have to be told.
    mkdirSync(join(folder, "registries.conf.d"));
    file("registries.conf.d/registry.conf", "[[registry]]", `location = "${registry}"`, "insecure = true");
    workshop.must("mount", "--bind", join(folder, "registries.conf.d"), "/etc/containers/registries.conf.d");
    const socket = join(folder, "containerd.sock");
    const paths = [`root = "${folder}/containerd-root"`, `state = "${folder}/containerd-state"`];
    const grpc = ["[grpc]", `address = "${socket}"`];
    const cri = 'disabled_plugins = ["io.containerd.grpc.v1.cri"]';
    const toml = file("containerd.toml", "version = 2", ...paths, cri, ...grpc);
    start("containerd.log", "containerd", "--config", toml);
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
    await until("containerd", () => output(workshop.inside("ctr", "-a", socket, "version")).exitCode === 0);
  }, 900_000);

  afterAll(async () => {
    for (const daemon of daemons) {
      daemon.kill("SIGTERM");
      await daemon.exited;
    }
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

      test("pushed: the registry has the archive's index, byte for byte", () => {
        sh(commands("Push it to a registry", kind));
        const raw = sh(`skopeo inspect --raw docker://${names("tag")}`);
        expect(`sha256:${createHash("sha256").update(raw).digest("hex")}`).toBe(archived());
      });

      test.each(["tag", "digest"] as const)("pulled by %s: same digest, this machine's platform", (by) => {
        if (by === "tag") sh(`podman pull ${names(by)}; ctr -n k8s.io images pull ${names(by)}`);
        else sh(commands("Pin it by digest", kind));
        const { containerd, podman } = digests(names(by));
        expect(containerd).toBe(archived());
        expect(podman).toContain(archived());
        expect(sh(`podman run --rm --network=none ${names(by)} -v`)).toBe(`init.ts ${version}\n`);
        expect(sh(`ctr -n k8s.io run --rm ${names(by)} version /pause -v`)).toBe(`init.ts ${version}\n`);
        sh(`podman run --detach --name rests --network=none ${names(by)}; podman stop --time 60 rests`);
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
        for (const architecture of PLATFORMS[kind]) {
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
