/**
 * What is in the images, that they are the same whenever they are built, and the examples.
 */
import { describe, expect, test } from "bun:test";
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
import { commit } from "../../image/commit.ts";
import {
  debianFiles,
  glibcOf,
  type HostedArchitecture,
  images,
  type Kind,
  kinds,
  platformOf,
} from "../../image/contents.ts";
import { KEYRING, mirrorOf } from "../../image/debian.ts";
import { indexOf } from "../../image/layout.ts";
import { description, devDependencies, version } from "../../package.json" with { type: "json" };
import { Machine, machineOf, missingDebian } from "../helpers/debian.ts";
import { buildImages } from "../helpers/images.ts";
import { Pod } from "../helpers/pod.ts";
import { childrenOf, must, output, until } from "../helpers/process.ts";
import { architecture, dist, root } from "../helpers/programs.ts";
import { PAUSE, sleepsInPause } from "../helpers/rest.ts";
import { missing, unobtainable } from "../helpers/tools.ts";

const how =
  missing({ buildah: "buildah", git: "git", "dpkg-deb": "dpkg", tar: "tar", zstd: "zstd" }) ||
  unobtainable(buildImages);
const rootfs = { amd64: glibcOf("amd64"), arm64: glibcOf("arm64") };
const filesOf = (glibc: readonly string[]) => ["/pause", ...glibc].toSorted();

const now = commit();
const created = new Date(now.time * 1000).toISOString().replace(".000Z", "Z");
const LABELS = (kind: Kind) => ({
  "org.opencontainers.image.title": "pause",
  "org.opencontainers.image.description": description,
  "org.opencontainers.image.version": version,
  ...(now.revision && { "org.opencontainers.image.revision": now.revision }),
  "org.opencontainers.image.created": created,
  "org.opencontainers.image.licenses": images[kind].licenses,
});
/** What there is beside the program and its libraries. */
const textsOf = (architecture: HostedArchitecture) => [
  ...Object.values(debianFiles(architecture)).flatMap((files) =>
    Object.keys(files).filter((path) => !path.startsWith("/lib")),
  ),
  ...Object.keys(debianFiles(architecture)).flatMap((name) =>
    ["", ".md5sums"].map((suffix) => `/var/lib/dpkg/status.d/${name}${suffix}`),
  ),
  "/usr/share/doc/bun/copyright",
  "/usr/share/doc/pause/LICENSE",
  "/usr/share/doc/pause/NOTICE",
];

const sha256 = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");

/** A copy of the repository, with node_modules but with nothing that was built. */
function copyOfRepository() {
  const clone = mkdtempSync(join(tmpdir(), "pause-again-"));
  for (const entry of readdirSync(root))
    if (entry !== "node_modules" && entry !== "dist")
      cpSync(join(root, entry), join(clone, entry), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(clone, "node_modules"));
  return {
    clone,
    [Symbol.dispose]() {
      for (const folder of [clone, `${clone}-bin`]) rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** The environment of a distribution without apt, dpkg and tar: npm, buildah, git and a shell, nothing else. */
function anyDistribution(folder: string): Record<string, string> {
  mkdirSync(folder);
  for (const tool of ["sh", "node", "npm", "buildah", "git"])
    symlinkSync(Bun.which(tool) ?? "", join(folder, tool));
  return { PATH: folder, HOME: folder };
}

describe.skipIf(how !== "")(`image${how && ` (skipped: ${how})`}`, () => {
  const member = (archive: string, path: string) =>
    must("tar", "--extract", "--to-stdout", "--file", archive, path);
  const pathOf = (digest: string) => `blobs/sha256/${digest.replace("sha256:", "")}`;

  for (const kind of kinds)
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
        const reference = {
          freestanding: `localhost/pause:${version}-freestanding`,
          hosted: `localhost/pause:${version}`,
        };
        expect(entry.annotations["org.opencontainers.image.ref.name"]).toBe(reference[kind]);
        expect(index.mediaType).toBe("application/vnd.oci.image.index.v1+json");
        expect(index.manifests.map(({ platform }: { platform: object }) => platform)).toEqual(
          images[kind].architectures.map(platformOf),
        );
        expect(index.annotations).toEqual(LABELS(kind));
      });

      test("an image with zstd is marked as such in the index, for skopeo", () => {
        const zstd = { "io.github.containers.compression.zstd": "true" };
        for (const { annotations } of manifests().index.manifests)
          expect(annotations).toEqual(kind === "hosted" ? zstd : undefined);
      });

      test("manifest.json, for Docker's own store, names the image of amd64", () => {
        const { config, layers } = blob(manifestOf("amd64").digest);
        expect(JSON.parse(member(archive, "manifest.json"))).toEqual([
          {
            Config: pathOf(config.digest),
            RepoTags: [images[kind].reference],
            Layers: [pathOf(layers[0].digest)],
          },
        ]);
      });

      for (const architecture of images[kind].architectures)
        test(`${architecture}: exactly the files that it takes, owned by root, readable by all, of the commit's time`, () => {
          const { config, layers, annotations } = blob(manifestOf(architecture).digest);
          expect(annotations).toEqual(LABELS(kind));
          expect(layers).toHaveLength(1);
          const compression = { freestanding: "gzip", hosted: "zstd" }[kind];
          expect(layers[0].mediaType).toBe(`application/vnd.oci.image.layer.v1.tar+${compression}`);
          const { config: run, ...image } = blob(config.digest);
          expect(image).toMatchObject({ ...platformOf(architecture), created });
          for (const step of image.history) expect(step.created).toBe(created);
          expect(run).toMatchObject({ User: "65535:65535", Entrypoint: ["/pause"] });
          expect(run.Labels).toEqual(LABELS(kind));
          const extract = `tar --extract --to-stdout --file ${archive} ${pathOf(layers[0].digest)}`;
          const list = `tar --${compression} --list --verbose --numeric-owner --utc --full-time`;
          const entries = must("sh", "-c", `${extract} | ${list}`)
            .trimEnd()
            .split("\n")
            .map((line) => line.split(/ +/));
          for (const [, owner, , day, time] of entries)
            expect([owner, `${day}T${time}Z`]).toEqual(["0/0", created]);
          const regular = entries.filter(([mode]) => mode?.startsWith("-"));
          const executables =
            kind === "hosted" ? filesOf(glibcOf(architecture as HostedArchitecture)) : ["/pause"];
          const texts = kind === "hosted" ? textsOf(architecture as HostedArchitecture) : [];
          expect(regular.map(([mode, , , , , path]) => `${mode} /${path}`).toSorted()).toEqual(
            [
              ...executables.map((path) => `-rwxr-xr-x ${path}`),
              ...texts.map((path) => `-rw-r--r-- ${path}`),
            ].toSorted(),
          );
          const folders = entries.filter(([mode]) => !mode?.startsWith("-"));
          for (const [mode] of folders) expect(mode).toBe("drwxr-xr-x");
          if (kind === "freestanding") expect(folders).toEqual([]);
        });

      test("the bill of materials names what is in the image, and every file with its checksum", () => {
        const sbom = JSON.parse(readFileSync(join(dist, images[kind].sbom), "utf8"));
        const { entry, index } = manifests();
        type Package = { name: string; versionInfo: string; externalRefs: { referenceLocator: string }[] };
        const purls = sbom.packages.map(({ externalRefs }: Package) => externalRefs[0]?.referenceLocator);
        const oci = (digest: string) => `pkg:oci/pause@${encodeURIComponent(digest)}`;
        const ofDebian = purls.filter((purl: string) => purl.startsWith("pkg:deb/"));
        expect(purls.toSorted()).toEqual(
          [
            `${oci(entry.digest)}?tag=${images[kind].tag}`,
            ...index.manifests.map(
              ({ digest, platform }: { digest: string; platform: { architecture: string } }) =>
                `${oci(digest)}?arch=${platform.architecture}`,
            ),
            `pkg:npm/bun@${devDependencies.bun}`,
            ...ofDebian,
          ].toSorted(),
        );
        expect(ofDebian.map((purl: string) => purl.replace(/@[^?]*/, ""))).toEqual(
          (kind === "hosted" ? ["amd64", "arm64"] : []).flatMap((architecture) => [
            `pkg:deb/debian/libc6?arch=${architecture}&distro=debian-12&upstream=glibc`,
            `pkg:deb/debian/base-files?arch=${architecture}&distro=debian-12`,
          ]),
        );
        if (kind === "hosted") expect(ofDebian[0]).toContain("@2.36-9%2Bdeb12u");
        const [{ packageFileName, checksums }] = sbom.packages;
        expect([packageFileName, checksums[0].checksumValue]).toEqual([
          images[kind].archive,
          sha256(archive),
        ]);
        const ofBun = sbom.relationships
          .filter((one: Record<string, string>) => JSON.stringify(one).includes("Package-bun-"))
          .map((one: Record<string, string>) => one.relationshipType);
        expect(ofBun).toEqual(["BUILD_TOOL_OF", ...(kind === "hosted" ? ["CONTAINS", "CONTAINS"] : [])]);

        // The files as they are in the layers, not as they lie about in dist/.
        const found = images[kind].architectures.flatMap((architecture) => {
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
            return `${architecture} .${path.slice(folder.length)} ${sha256(path)}`;
          });
          rmSync(folder, { recursive: true });
          return sums;
        });
        const listed = sbom.files.map(
          (file: {
            SPDXID: string;
            fileName: string;
            checksums: { algorithm: string; checksumValue: string }[];
          }) =>
            `${file.SPDXID.split("-")[2]} ${file.fileName} ${file.checksums.find(({ algorithm }) => algorithm === "SHA256")?.checksumValue}`,
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
          ["oci-layout", "index.json", "manifest.json", pathOf(entry.digest), ...named].toSorted(),
        );
      });
    });

  const validator =
    process.getuid?.() === 0
      ? missingDebian({ mmdebstrap: "mmdebstrap" }) || unobtainable(() => machineOf("sid"))
      : "run the tests as root";
  test.skipIf(validator !== "")(
    `the bills of materials are valid SPDX 2.3, and have no field that is not SPDX's${validator && ` (skipped: ${validator})`}`,
    async () => {
      await using machine = await Machine.start("sid");
      for (const kind of kinds) {
        const text = readFileSync(join(dist, images[kind].sbom), "utf8");
        writeFileSync(join(machine.folder, "in.spdx.json"), text);
        // Reading drops what it does not know.
        machine.must(
          "/usr/bin/python3",
          "/usr/bin/pyspdxtools",
          "-i",
          "/mnt/in.spdx.json",
          "-o",
          "/mnt/out.spdx.json",
        );
        const out = readFileSync(join(machine.folder, "out.spdx.json"), "utf8");
        expect(JSON.parse(out.replaceAll("PACKAGE_MANAGER", "PACKAGE-MANAGER"))).toEqual(JSON.parse(text));
      }
    },
    300_000,
  );

  test("hosted: dpkg reads what it has of Debian's packages, and their files are as it says", () => {
    for (const architecture of ["amd64", "arm64"] as const) {
      const rootfs = join(dist, images.hosted.rootfs, architecture);
      const status = join(rootfs, "var/lib/dpkg/status.d");
      const names = Object.keys(debianFiles(architecture));
      const admindir = mkdtempSync(join(tmpdir(), "pause-dpkg-"));
      const fields = names.map((name) => readFileSync(join(status, name), "utf8"));
      const text = fields.map((control) => `Status: install ok installed\n${control}\n`).join("");
      writeFileSync(join(admindir, "status"), text);
      const shown = ["Package", "Architecture", "source:Package", "source:Version"];
      const format = `${shown.map((field) => `\${${field}}`).join(" ")}\\n`;
      const list = must("dpkg-query", "--admindir", admindir, "--show", "--showformat", format).split("\n");
      rmSync(admindir, { recursive: true });
      expect(list).toEqual([
        expect.stringContaining(`base-files ${architecture} base-files 12`),
        expect.stringContaining(`libc6 ${architecture} glibc 2.36-9+deb12u`),
        "",
      ]);
      for (const name of names)
        must("sh", "-c", `cd ${rootfs} && md5sum --check --strict var/lib/dpkg/status.d/${name}.md5sums`);
      expect(readFileSync(join(rootfs, "etc/os-release"), "utf8")).toMatch(/^VERSION_ID="12"$/m);
      expect(readFileSync(join(rootfs, "usr/share/doc/bun/copyright"), "utf8")).toMatch(
        /^Bun itself is MIT-licensed.*JavaScriptCore.*Permission is hereby granted/s,
      );
    }
  });

  const readelf = missing({ readelf: "binutils-multiarch" });
  test.skipIf(readelf !== "")(
    `freestanding: no segment can be written, and nothing is relocated${readelf && ` (skipped: ${readelf})`}`,
    () => {
      for (const architecture of images.freestanding.architectures) {
        const executable = join(dist, images.freestanding.rootfs, architecture, "pause");
        const segments = must("readelf", "--wide", "--segments", executable);
        const flags = [...segments.matchAll(/^ +(\w+) +(?:0x\w+ +){5}([RWE ]{3})/gm)];
        expect(flags.map(([, type, flags]) => [type, flags])).toEqual([
          ["LOAD", "R E"],
          ["GNU_STACK", "RW "],
        ]);
        expect(must("readelf", "--relocs", executable)).toContain("There are no relocations in this file.");
      }
    },
  );

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
      cpSync(join(dist, "rootfs", architecture), folder, { recursive: true });
      must("mkdir", join(folder, "proc"));
      const script = `mount -t proc proc ${folder}/proc && exec strace -o ${trace} -e trace=execve,openat,${PAUSE} chroot ${folder} /pause`;
      const text = () => output(["cat", trace]).stdout;
      {
        // All that is in it ends with PID 1 of a namespace, which strace is here.
        await using pod = await Pod.start(["sh", "-c", script]);
        await until("pause", () => text().includes(`${PAUSE}(`), pod);
      }
      rmSync(folder, { recursive: true });
      const opened = [...text().matchAll(/(?:openat\(AT_FDCWD, |execve\()"([^"]+)".* = \d+$/gm)].map(
        ([, path]) => path ?? "",
      );
      // The kernel opens the interpreter itself.
      const [loader] = rootfs[architecture];
      expect(
        filesOf(rootfs[architecture]).filter((file) => file !== loader && !opened.includes(file)),
      ).toEqual([]);
    },
  );

  const qemu = missing({ "qemu-aarch64-static": "qemu-user-static" });
  test.skipIf(qemu !== "")(
    `arm64's root file system works under qemu-user${qemu && ` (skipped: ${qemu})`}`,
    async () => {
      const folder = join(dist, "rootfs/arm64");
      await using pod = await Pod.start(["qemu-aarch64-static", "-L", folder, join(folder, "pause")]);
      await until("pause", () => sleepsInPause(pod.pid));
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
    const env = anyDistribution(`${clone}-bin`);
    const build = output(["sh", "-c", "umask 077; npm run -s image -- freestanding"], { cwd: clone, env });
    expect(build).toMatchObject({ stderr: "", exitCode: 0 });
    expect(outputs("freestanding", clone)).toEqual(outputs("freestanding", root));
  }, 300_000);

  test("without a repository it is of no commit and of 1970, or SOURCE_DATE_EPOCH", () => {
    using repository = copyOfRepository();
    const { clone } = repository;
    rmSync(join(clone, ".git"), { recursive: true });
    const build = (epoch: string) => {
      const env = { ...anyDistribution(`${clone}-bin`), SOURCE_DATE_EPOCH: epoch };
      const result = output(["npm", "run", "-s", "image", "--", "freestanding"], { cwd: clone, env });
      rmSync(`${clone}-bin`, { recursive: true });
      return result;
    };
    for (const [epoch, time] of [
      ["", "1970-01-01T00:00:00Z"],
      ["1000000000", "2001-09-09T01:46:40Z"],
    ] as const) {
      expect(build(epoch)).toMatchObject({ stderr: "", exitCode: 0 });
      const { annotations = {} } = indexOf(join(clone, "dist", images.freestanding.archive)).index;
      expect(annotations["org.opencontainers.image.created"]).toBe(time);
      expect(annotations).not.toHaveProperty(["org.opencontainers.image.revision"]);
    }
    expect(build("yesterday")).toMatchObject({
      stderr: 'image: SOURCE_DATE_EPOCH is "yesterday": it takes seconds since 1970\n',
      exitCode: 1,
    });
  }, 300_000);

  test("a changed tree says so, and package.json's repository is where the source is", () => {
    using repository = copyOfRepository();
    const { clone } = repository;
    const url = "https://example.org/pause";
    must("npm", "--prefix", clone, "pkg", "set", `repository.url=git+${url}.git`);
    must("npm", "--prefix", clone, "run", "-s", "image", "--", "freestanding");
    const { annotations } = indexOf(join(clone, "dist", images.freestanding.archive)).index;
    expect(annotations).toMatchObject({
      ...(now.revision && {
        "org.opencontainers.image.revision": `${now.revision.replace("-dirty", "")}-dirty`,
      }),
      "org.opencontainers.image.source": url,
      "org.opencontainers.image.url": url,
      "org.opencontainers.image.documentation": `${url}#readme`,
    });
  }, 300_000);

  test("hosted: where there is no apt, one line says what works", () => {
    using repository = copyOfRepository();
    const { clone } = repository;
    const env = anyDistribution(`${clone}-bin`);
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
        const library = JSON.stringify(join(root, "image/debian.ts"));
        const script = `console.log(JSON.stringify((await import(${library})).debianPackages(${JSON.stringify(folder)}, ["amd64", "arm64"], ["libc6"])))`;
        const mounts = `mount --bind ${folder}/os-release /etc/os-release && mount -t tmpfs none /etc/apt/sources.list.d`;
        const text = must(
          ...["unshare", "--mount", "sh", "-c"],
          `${mounts} && cp ${folder}/sources.list /etc/apt/sources.list.d/test.list && exec "$@"`,
          ...["sh", process.execPath, "-e", script],
        );
        for (const [{ version }] of Object.values<[{ version: string }]>(JSON.parse(text)))
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

test("the example of a pod is valid, shares its PID namespace, and runs with imported images", async () => {
  const manifest = Bun.YAML.parse(
    await Bun.file(join(root, "examples/pod.yaml")).text(),
  ) as ConstructorParameters<typeof PodManifest>[0];
  new PodManifest(manifest).validate();
  expect(manifest?.spec?.shareProcessNamespace).toBe(true);
  // Kubernetes always pulls an image without a tag, or with "latest", unless this is said.
  for (const { image, imagePullPolicy } of manifest?.spec?.containers ?? [])
    if (!/:(?!latest$)/.test(image ?? "")) expect([image, imagePullPolicy]).toEqual([image, "IfNotPresent"]);
});
