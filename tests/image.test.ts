/**
 * What is in the images, that they are the same whenever they are built, and the examples.
 */
import { beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Pod as PodManifest } from "kubernetes-models/v1/Pod";
import { glibcOf, type HostedArchitecture, images, type Kind } from "../image/contents.ts";
import { KEYRING, mirrorOf } from "../image/libc6.ts";
import { description, devDependencies, version } from "../package.json" with { type: "json" };
import { buildImages } from "./helpers/images.ts";
import { Pod } from "./helpers/pod.ts";
import { childrenOf, must, output, proc, until } from "./helpers/process.ts";
import { dist, root } from "./helpers/programs.ts";
import { missing } from "./helpers/tools.ts";

const IMAGE = `localhost/pause:${version}`;
const how = missing({ buildah: "buildah", "dpkg-deb": "dpkg", tar: "tar", zstd: "zstd" });
const rootfs = { amd64: glibcOf("amd64"), arm64: glibcOf("arm64") };
const filesOf = (glibc: readonly string[]) => ["/pause", ...glibc].toSorted();

const PLATFORMS: Record<Kind, { architecture: string; variant?: string; os: string }[]> = {
  freestanding: [
    { architecture: "amd64", os: "linux" },
    { architecture: "arm", variant: "v7", os: "linux" },
    { architecture: "arm64", os: "linux" },
    { architecture: "loong64", os: "linux" },
    { architecture: "ppc64le", os: "linux" },
    { architecture: "riscv64", os: "linux" },
    { architecture: "s390x", os: "linux" },
  ],
  hosted: [
    { architecture: "amd64", os: "linux" },
    { architecture: "arm64", os: "linux" },
  ],
};
const KINDS = ["freestanding", "hosted"] as const;

const sha256 = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");

/** A copy of the repository, with node_modules but with nothing that was built. */
function copyOfRepository() {
  const clone = mkdtempSync(join(tmpdir(), "pause-again-"));
  for (const entry of readdirSync(root))
    if (entry !== "node_modules" && entry !== "dist")
      cpSync(join(root, entry), join(clone, entry), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(clone, "node_modules"));
  return { clone, [Symbol.dispose]: () => rmSync(clone, { recursive: true }) };
}

/** The environment of a distribution without apt, dpkg and tar: npm, buildah and a shell, nothing else. */
function anyDistribution(folder: string): Record<string, string> {
  mkdirSync(folder);
  for (const tool of ["sh", "node", "npm", "buildah"]) symlinkSync(Bun.which(tool) ?? "", join(folder, tool));
  return { PATH: folder, HOME: folder };
}

describe.skipIf(how !== "")(`image${how && ` (skipped: ${how})`}`, () => {
  beforeAll(buildImages, 900_000);

  const member = (archive: string, path: string) =>
    must("tar", "--extract", "--to-stdout", "--file", archive, path);
  const pathOf = (digest: string) => `blobs/sha256/${digest.replace("sha256:", "")}`;

  for (const kind of KINDS)
    describe(kind, () => {
      const archive = join(dist, images[kind].archive);
      const blob = (digest: string) => JSON.parse(member(archive, pathOf(digest)));
      const manifests = () => {
        const [entry] = JSON.parse(member(archive, "index.json")).manifests;
        return { entry, index: blob(entry.digest) };
      };
      const manifestOf = (architecture: string) =>
        manifests().index.manifests.find(
          ({ platform }: { platform: { architecture: string } }) => platform.architecture === architecture,
        );

      test("an index of all platforms under one name", () => {
        const { entry, index } = manifests();
        const reference = { freestanding: `localhost/pause:${version}-freestanding`, hosted: IMAGE };
        expect(entry.annotations["org.opencontainers.image.ref.name"]).toBe(reference[kind]);
        expect(index.mediaType).toBe("application/vnd.oci.image.index.v1+json");
        expect(index.manifests.map(({ platform }: { platform: object }) => platform)).toEqual(
          PLATFORMS[kind],
        );
      });

      for (const { architecture, variant } of PLATFORMS[kind])
        test(`${architecture}: exactly the files that it takes, owned by root, readable by all, of 1970`, () => {
          const { config, layers } = blob(manifestOf(architecture).digest);
          expect(layers).toHaveLength(1);
          const compression = { freestanding: "gzip", hosted: "zstd" }[kind];
          expect(layers[0].mediaType).toBe(`application/vnd.oci.image.layer.v1.tar+${compression}`);
          const { config: run, ...image } = blob(config.digest);
          const created = "1970-01-01T00:00:00Z";
          expect(image).toMatchObject({ architecture, os: "linux", created, ...(variant && { variant }) });
          for (const step of image.history) expect(step.created).toBe(created);
          expect(run).toMatchObject({ User: "65535:65535", Entrypoint: ["/pause"] });
          expect(run.Labels).toEqual({
            "org.opencontainers.image.title": "pause",
            "org.opencontainers.image.description": description,
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.licenses": images[kind].licenses,
          });
          const extract = `tar --extract --to-stdout --file ${archive} ${pathOf(layers[0].digest)}`;
          const list = `tar --${compression} --list --verbose --numeric-owner --utc --full-time`;
          const entries = must("sh", "-c", `${extract} | ${list}`)
            .trimEnd()
            .split("\n")
            .map((line) => line.split(/ +/));
          for (const [, owner, , day, time] of entries)
            expect([owner, day, time]).toEqual(["0/0", "1970-01-01", "00:00:00"]);
          const regular = entries.filter(([mode]) => mode?.startsWith("-"));
          expect(regular.map(([mode, , , , , path]) => [mode, `/${path}`]).toSorted()).toEqual(
            (kind === "hosted" ? filesOf(glibcOf(architecture as HostedArchitecture)) : ["/pause"]).map(
              (path) => ["-rwxr-xr-x", path],
            ),
          );
          const folders = entries.filter(([mode]) => !mode?.startsWith("-"));
          for (const [mode] of folders) expect(mode).toBe("drwxr-xr-x");
          if (kind === "freestanding") expect(folders).toEqual([]);
        });

      test("the bill of materials names what is in the image, and every file with its checksum", () => {
        const sbom = JSON.parse(readFileSync(join(dist, images[kind].sbom), "utf8"));
        expect(sbom.spdxVersion).toBe("SPDX-2.3");
        const names = sbom.packages.map(
          ({ name, versionInfo }: Record<string, string>) => `${name}@${versionInfo}`,
        );
        const libc6 = names.filter((name: string) => name.startsWith("libc6@2.36-9+deb12u"));
        expect(libc6).toHaveLength(kind === "hosted" ? 2 : 0);
        expect(names.toSorted()).toEqual(
          [...libc6, `pause@${version}`, `bun@${devDependencies.bun}`].toSorted(),
        );
        const ofBun = sbom.relationships
          .filter((one: Record<string, string>) => JSON.stringify(one).includes("Package-bun-"))
          .map((one: Record<string, string>) => one.relationshipType);
        expect(ofBun).toEqual(["BUILD_TOOL_OF", ...(kind === "hosted" ? ["CONTAINS", "CONTAINS"] : [])]);

        // The files as they are in the layers, not as they lie about in dist/.
        const found = PLATFORMS[kind].flatMap(({ architecture }) => {
          const folder = mkdtempSync(join(tmpdir(), "pause-layer-"));
          const [layer] = blob(manifestOf(architecture).digest).layers;
          const extract = `tar --extract --to-stdout --file ${archive} ${pathOf(layer.digest)}`;
          const compression = layer.mediaType.split("+")[1];
          must("sh", "-c", `${extract} | tar --${compression} --extract --directory ${folder}`);
          const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((one) =>
            one.isFile(),
          );
          const sums = files.map((one) => {
            const path = join(one.parentPath, one.name);
            return `./${architecture}${path.slice(folder.length)} ${sha256(path)}`;
          });
          rmSync(folder, { recursive: true });
          return sums;
        });
        const listed = sbom.files.map(
          (file: { fileName: string; checksums: { algorithm: string; checksumValue: string }[] }) =>
            `${file.fileName} ${file.checksums.find(({ algorithm }) => algorithm === "SHA256")?.checksumValue}`,
        );
        expect(listed.toSorted()).toEqual(found.toSorted());
      });

      test("the archive has nothing that the index does not name, and no time in it", () => {
        const { entry, index } = manifests();
        const named = index.manifests.flatMap(({ digest }: { digest: string }) => {
          const { config, layers } = blob(digest);
          return [digest, config.digest, layers[0].digest].map(pathOf);
        });
        const entries = must("tar", "--list", "--verbose", "--utc", "--full-time", "--file", archive)
          .trimEnd()
          .split("\n")
          .map((line) => line.split(/ +/));
        for (const [, , , day, time] of entries) expect([day, time]).toEqual(["1970-01-01", "00:00:00"]);
        expect(entries.map(([, , , , , path]) => path).toSorted()).toEqual(
          ["oci-layout", "index.json", pathOf(entry.digest), ...named].toSorted(),
        );
      });
    });

  test("freestanding: every layer is less than 2 KiB, the archive of all less than 48", () => {
    const archive = join(dist, images.freestanding.archive);
    expect(statSync(archive).size).toBeLessThan(48 << 10);
    const [entry] = JSON.parse(member(archive, "index.json")).manifests;
    for (const { digest } of JSON.parse(member(archive, pathOf(entry.digest))).manifests)
      expect(JSON.parse(member(archive, pathOf(digest))).layers[0].size).toBeLessThan(2 << 10);
  });

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

  const outputs = (kind: Kind, folder: string) =>
    [images[kind].archive, images[kind].sbom].map((file) => sha256(join(folder, "dist", file)));

  test("freestanding: where there is only npm and buildah, in another folder, with another umask: the same bytes", () => {
    using repository = copyOfRepository();
    const { clone } = repository;
    const env = anyDistribution(join(clone, "bin"));
    const build = output(["sh", "-c", "umask 077; npm run -s image -- freestanding"], { cwd: clone, env });
    expect(build).toMatchObject({ stderr: "", exitCode: 0 });
    expect(outputs("freestanding", clone)).toEqual(outputs("freestanding", root));
  }, 300_000);

  test("hosted: where there is no apt, one line says what works", () => {
    using repository = copyOfRepository();
    const { clone } = repository;
    const env = anyDistribution(join(clone, "bin"));
    expect(output(["npm", "run", "-s", "image", "--", "hosted"], { cwd: clone, env })).toMatchObject({
      stderr:
        'image: apt-get is missing: it takes a Debian or Ubuntu; "npm run image -- freestanding" works here\n',
      exitCode: 1,
    });
  });

  const keyring = missing({ [KEYRING]: "debian-archive-keyring" });
  const why = process.getuid?.() === 0 ? keyring : "run the tests as root";
  const debian = (suite: string) => `deb [signed-by=${KEYRING}] ${mirrorOf("bookworm")} ${suite} main`;
  for (const [where, release, suites] of [
    ["Ubuntu with a source of Debian 12", "ID=ubuntu\nVERSION_CODENAME=noble\n", ["bookworm"]],
    ["Debian 13", "ID=debian\nVERSION_CODENAME=trixie\n", ["trixie"]],
    ["Debian 12 with packages of 13", "ID=debian\nVERSION_CODENAME=bookworm\n", ["bookworm", "trixie"]],
  ] as const)
    test.skipIf(why !== "")(
      `on ${where} libc6 is Debian 12's${why && ` (skipped: ${why})`}`,
      () => {
        const folder = mkdtempSync(join(tmpdir(), "pause-libc6-"));
        writeFileSync(join(folder, "os-release"), release);
        writeFileSync(join(folder, "sources.list"), `${suites.map(debian).join("\n")}\n`);
        const library = JSON.stringify(join(root, "image/libc6.ts"));
        const script = `console.log(JSON.stringify((await import(${library})).libc6(${JSON.stringify(folder)}, ["amd64", "arm64"])))`;
        const mounts = `mount --bind ${folder}/os-release /etc/os-release && mount -t tmpfs none /etc/apt/sources.list.d`;
        const text = must(
          ...["unshare", "--mount", "sh", "-c"],
          `${mounts} && cp ${folder}/sources.list /etc/apt/sources.list.d/test.list && exec "$@"`,
          ...["sh", process.execPath, "-e", script],
        );
        for (const { version } of Object.values<{ version: string }>(JSON.parse(text)))
          expect(version).toStartWith("2.36-9+deb12u");
        rmSync(folder, { recursive: true });
      },
      300_000,
    );

  test("hosted: a second build, at another time and in another folder, is the same byte for byte", () => {
    using repository = copyOfRepository();
    must("npm", "--prefix", repository.clone, "run", "-s", "image", "--", "hosted");
    expect(outputs("hosted", repository.clone)).toEqual(outputs("hosted", root));
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
