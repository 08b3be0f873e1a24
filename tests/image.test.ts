/**
 * What is in the image, that it is the same whenever it is built, and the examples.
 */
import { beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Pod as PodManifest } from "kubernetes-models/v1/Pod";
import { version } from "../package.json" with { type: "json" };
import { buildImages } from "./helpers/images.ts";
import { Pod } from "./helpers/pod.ts";
import { childrenOf, must, output, proc, until } from "./helpers/process.ts";
import { dist, root } from "./helpers/programs.ts";
import { missing } from "./helpers/tools.ts";

const IMAGE = `localhost/pause:${version}`;
const how = missing({ buildah: "buildah", "dpkg-deb": "dpkg", tar: "tar", zstd: "zstd" });
const archive = join(dist, "pause.oci.tar");
const rootfs = {
  amd64: ["/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu"],
  arm64: ["/lib/ld-linux-aarch64.so.1", "/lib/aarch64-linux-gnu"],
} as const;
const libraries = ["libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0"];
const filesOf = ([loader, folder]: readonly [string, string]) =>
  ["/pause", loader, ...libraries.map((library) => `${folder}/${library}`)].toSorted();

describe.skipIf(how !== "")(`image${how && ` (skipped: ${how})`}`, () => {
  beforeAll(buildImages, 900_000);

  const blob = (digest: string) =>
    JSON.parse(
      must(
        "tar",
        "--extract",
        "--to-stdout",
        "--file",
        archive,
        `blobs/sha256/${digest.replace("sha256:", "")}`,
      ),
    );
  const manifests = () => {
    const [entry] = JSON.parse(
      must("tar", "--extract", "--to-stdout", "--file", archive, "index.json"),
    ).manifests;
    return { entry, index: blob(entry.digest) };
  };

  test("an index of two architectures under one name", () => {
    const { entry, index } = manifests();
    expect(entry.annotations["org.opencontainers.image.ref.name"]).toBe(IMAGE);
    expect(index.manifests.map(({ platform }: { platform: object }) => platform)).toEqual([
      { architecture: "amd64", os: "linux" },
      { architecture: "arm64", os: "linux" },
    ]);
  });

  for (const [architecture, files] of Object.entries(rootfs)) {
    test(`${architecture}: exactly the files that Bun links, owned by root, readable by all`, () => {
      const { index } = manifests();
      const { digest } = index.manifests.find(
        ({ platform }: { platform: { architecture: string } }) => platform.architecture === architecture,
      );
      const { config, layers } = blob(digest);
      expect(layers).toHaveLength(1);
      expect(layers[0].mediaType).toBe("application/vnd.oci.image.layer.v1.tar+zstd");
      const { config: run, ...image } = blob(config.digest);
      expect(image).toMatchObject({ architecture, os: "linux", created: "1970-01-01T00:00:00Z" });
      expect(run).toMatchObject({ User: "65535:65535", Entrypoint: ["/pause"] });
      expect(run.Labels).toMatchObject({
        "org.opencontainers.image.title": "pause",
        "org.opencontainers.image.version": version,
      });
      const path = `blobs/sha256/${layers[0].digest.replace("sha256:", "")}`;
      const tar = must(
        "sh",
        "-c",
        `tar --extract --to-stdout --file ${archive} ${path} | tar --zstd --list --verbose --numeric-owner`,
      );
      const entries = tar
        .trimEnd()
        .split("\n")
        .map((line) => line.split(/ +/));
      const regular = entries.filter(([mode]) => mode?.startsWith("-"));
      expect(regular.map(([mode, owner, , , , name]) => [mode, owner, `/${name}`]).toSorted()).toEqual(
        filesOf(files).map((file) => ["-rwxr-xr-x", "0/0", file]),
      );
      const folders = entries.filter(([mode]) => !mode?.startsWith("-"));
      for (const [mode, owner] of folders) expect([mode, owner]).toEqual(["drwxr-xr-x", "0/0"]);
    });
  }

  const strace = missing({ strace: "strace" });
  test.skipIf(strace !== "" || process.getuid?.() !== 0)(
    `every file is opened at start${strace && ` (skipped: ${strace})`}`,
    async () => {
      const trace = join(dist, "rootfs.strace");
      rmSync(trace, { force: true });
      const folder = mkdtempSync(join(tmpdir(), "pause-rootfs-"));
      cpSync(join(dist, "rootfs/amd64"), folder, { recursive: true });
      must("mkdir", join(folder, "proc"));
      const script = `mount -t proc proc ${folder}/proc && exec strace -o ${trace} -e trace=execve,openat,pause chroot ${folder} /pause`;
      const text = () => output(["cat", trace]).stdout;
      {
        // All that is in it ends with PID 1 of a namespace, which strace is here.
        await using pod = await Pod.start(["sh", "-c", script]);
        await until("pause", () => text().includes("pause("), pod);
      }
      rmSync(folder, { recursive: true });
      const opened = [...text().matchAll(/(?:openat\(AT_FDCWD, |execve\()"([^"]+)".* = \d+$/gm)].map(
        ([, path]) => path ?? "",
      );
      // The kernel opens the interpreter itself.
      const [loader] = rootfs.amd64;
      expect(filesOf(rootfs.amd64).filter((file) => file !== loader && !opened.includes(file))).toEqual([]);
    },
  );

  const qemu = missing({ "qemu-aarch64-static": "qemu-user-static" });
  test.skipIf(qemu !== "")(
    `arm64's root file system works under qemu-user${qemu && ` (skipped: ${qemu})`}`,
    async () => {
      const folder = join(dist, "rootfs/arm64");
      await using pod = await Pod.start(["qemu-aarch64-static", "-L", folder, join(folder, "pause")]);
      await until("pause", () => /^(271|34) /.test(proc(pod.pid, "syscall")));
      pod.exec("sh", "-c", 'for i in $(seq 20); do sh -c "sleep 0.01 &"; done');
      await until("no child", () => childrenOf(pod.pid).length === 0);
      expect(await pod.end("SIGTERM")).toMatchObject({
        stderr: "Shutting down, got signal: Terminated\n",
        exitCode: 0,
      });
    },
  );

  test("the bill of materials names the program, Bun and glibc, with the files' checksums", () => {
    const sbom = JSON.parse(readFileSync(join(dist, "pause.spdx.json"), "utf8"));
    expect(sbom.spdxVersion).toBe("SPDX-2.3");
    const names = sbom.packages.map(
      ({ name, versionInfo }: Record<string, string>) => `${name}@${versionInfo}`,
    );
    for (const name of [`pause@${version}`, "bun@1.4.5"]) expect(names).toContain(name);
    expect(names.filter((name: string) => name.startsWith("libc6@"))).toHaveLength(2);
    const sums = sbom.files.flatMap((file: { checksums: { checksumValue: string }[] }) =>
      file.checksums.map((one) => one.checksumValue),
    );
    expect(sums).toContain(
      createHash("sha256")
        .update(readFileSync(join(dist, "rootfs/amd64/pause")))
        .digest("hex"),
    );
  });

  test("a second build, at another time and in another folder, is the same byte for byte", () => {
    const sha256 = (folder: string) =>
      ["pause.oci.tar", "pause.spdx.json", "rootfs/amd64/pause"].map((file) =>
        createHash("sha256")
          .update(readFileSync(join(folder, "dist", file)))
          .digest("hex"),
      );
    const clone = mkdtempSync(join(tmpdir(), "pause-again-"));
    for (const entry of readdirSync(root))
      if (entry !== "node_modules" && entry !== "dist")
        cpSync(join(root, entry), join(clone, entry), { recursive: true });
    symlinkSync(join(root, "node_modules"), join(clone, "node_modules"));
    must("npm", "--prefix", clone, "run", "-s", "image");
    expect(sha256(clone)).toEqual(sha256(root));
    rmSync(clone, { recursive: true });
  }, 900_000);
});

test("the example of a pod is valid, and shares its PID namespace", async () => {
  const manifest = Bun.YAML.parse(
    await Bun.file(join(root, "examples/pod.yaml")).text(),
  ) as ConstructorParameters<typeof PodManifest>[0];
  new PodManifest(manifest).validate();
  expect(manifest?.spec?.shareProcessNamespace).toBe(true);
});

test("the examples of configuration name this version of the image", async () => {
  for (const file of [
    "containerd-1.x/config.toml",
    "containerd-2.x/config.toml",
    "crio/10-pause.conf",
    "podman/containers.conf",
  ]) {
    const text = await Bun.file(join(root, "examples", file)).text();
    expect(JSON.stringify(Bun.TOML.parse(text))).toContain(`"${IMAGE}"`);
  }
});
