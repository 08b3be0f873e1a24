/**
 * What is in the archives of the images and in their bills of materials, and the example of a pod.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { commit } from "../../image/commit.ts";
import {
  debianFiles,
  glibcOf,
  type HostedArchitecture,
  images,
  kinds,
  platformOf,
} from "../../image/contents.ts";
import type { Descriptor, Index } from "../../image/layout.ts";
import { description, devDependencies, version } from "../../package.json" with { type: "json" };
import { DebianMachine, machineNeeds } from "../helpers/debian.ts";
import { ended, needing } from "../helpers/expect.ts";
import { IMAGES, Layout, readJson } from "../helpers/images.ts";
import { must, output, temporary } from "../helpers/process.ts";
import { dist } from "../helpers/programs.ts";

const now = commit();
const created = new Date(now.time * 1000).toISOString().replace(".000Z", "Z");
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

/** What tar lists of an archive with these options: the columns of each entry. */
const listed = (file: string, ...options: readonly string[]) =>
  must("tar", ...options, "--list", "--verbose", "--numeric-owner", "--utc", "--full-time", "--file", file)
    .trimEnd()
    .split("\n")
    .map((line) => line.split(/ +/));

const archives = needing({ zstd: "zstd", git: "git" }, ...IMAGES);
for (const kind of kinds)
  archives.describe(kind, () => {
    const { reference, architectures, tag, licenses } = images[kind];
    const archive = join(dist, images[kind].archive);
    const isHosted = kind === "hosted";
    const compression = isHosted ? "--zstd" : "--gzip";
    const labels = {
      "org.opencontainers.image.title": "pause",
      "org.opencontainers.image.description": description,
      "org.opencontainers.image.version": version,
      ...(now.revision && { "org.opencontainers.image.revision": now.revision }),
      "org.opencontainers.image.created": created,
      "org.opencontainers.image.licenses": licenses,
    };
    let layout: Layout;
    let index: Index;
    beforeAll(() => {
      layout = new Layout(archive);
      index = layout.json(layout.entry);
    });
    afterAll(() => layout[Symbol.dispose]());

    const manifestOf = (architecture: string) => {
      const entry = index.manifests.find(({ platform }) => platform?.architecture === architecture);
      return layout.json(entry ?? { digest: "none" });
    };
    const pathOf = ({ digest }: Pick<Descriptor, "digest">) => `blobs/${digest.replace(":", "/")}`;

    test("an index of all platforms under one name", () => {
      const { annotations } = layout.entry;
      expect(annotations?.["org.opencontainers.image.ref.name"]).toBe(
        `localhost/pause:${version}${isHosted ? "" : "-freestanding"}`,
      );
      expect(index).toMatchObject({ mediaType: "application/vnd.oci.image.index.v1+json" });
      expect(index.manifests.map(({ platform }) => platform)).toEqual(architectures.map(platformOf));
      expect(index.annotations).toEqual(labels);
    });

    test("an image with zstd is marked as such in the index, for skopeo", () => {
      const zstd = { "io.github.containers.compression.zstd": "true" };
      for (const { annotations } of index.manifests) expect(annotations).toEqual(isHosted ? zstd : undefined);
    });

    test("manifest.json, for Docker's own store, names the image of amd64", () => {
      const { config, layers } = manifestOf("amd64");
      expect(readJson(join(layout.folder, "manifest.json"))).toEqual([
        { Config: pathOf(config), RepoTags: [reference], Layers: [pathOf(layers[0])] },
      ]);
    });

    for (const architecture of architectures)
      test(`${architecture}: exactly the files that it takes, owned by root, readable by all, of the commit's time`, () => {
        const { config, layers, annotations } = manifestOf(architecture);
        expect(annotations).toEqual(labels);
        expect(layers).toHaveLength(1);
        expect(layers[0].mediaType).toBe(
          `application/vnd.oci.image.layer.v1.tar+${isHosted ? "zstd" : "gzip"}`,
        );
        const { config: run, ...image } = layout.json(config);
        expect(image).toMatchObject({ ...platformOf(architecture), created });
        for (const step of image.history) expect(step.created).toBe(created);
        expect(run).toMatchObject({ User: "65535:65535", Entrypoint: ["/pause"] });
        expect(run.Labels).toEqual(labels);
        const entries = listed(layout.path(layers[0]), compression);
        for (const [, owner, , day, time] of entries)
          expect([owner, `${day}T${time}Z`]).toEqual(["0/0", created]);
        const [glibc, texts] = isHosted
          ? [glibcOf(architecture as HostedArchitecture), textsOf(architecture as HostedArchitecture)]
          : [[], []];
        const regular = entries.filter(([mode]) => mode?.startsWith("-"));
        expect(regular.map(([mode, , , , , path]) => `${mode} /${path}`).toSorted()).toEqual(
          [
            ...["/pause", ...glibc].map((path) => `-rwxr-xr-x ${path}`),
            ...texts.map((path) => `-rw-r--r-- ${path}`),
          ].toSorted(),
        );
        const folders = entries.filter(([mode]) => !mode?.startsWith("-"));
        for (const [mode] of folders) expect(mode).toBe("drwxr-xr-x");
        if (!isHosted) expect(folders).toEqual([]);
      });

    test("the bill of materials names what is in the image, and every file with its checksum", () => {
      const sbom = readJson(join(dist, images[kind].sbom));
      type Package = { externalRefs: { referenceLocator: string }[] };
      const purls: string[] = sbom.packages.map(
        ({ externalRefs }: Package) => externalRefs[0]?.referenceLocator,
      );
      const oci = ({ digest }: Descriptor) => `pkg:oci/pause@${encodeURIComponent(digest)}`;
      const ofDebian = purls.filter((purl) => purl.startsWith("pkg:deb/"));
      expect(purls.toSorted()).toEqual(
        [
          `${oci(layout.entry)}?tag=${tag}`,
          ...index.manifests.map((entry) => `${oci(entry)}?arch=${entry.platform?.architecture}`),
          `pkg:npm/bun@${devDependencies.bun}`,
          ...ofDebian,
        ].toSorted(),
      );
      expect(ofDebian.map((purl) => purl.replace(/@[^?]*/, ""))).toEqual(
        (isHosted ? ["amd64", "arm64"] : []).flatMap((architecture) => [
          `pkg:deb/debian/libc6?arch=${architecture}&distro=debian-12&upstream=glibc`,
          `pkg:deb/debian/base-files?arch=${architecture}&distro=debian-12`,
        ]),
      );
      if (isHosted) expect(ofDebian[0]).toContain("@2.36-9%2Bdeb12u");
      const [{ packageFileName, checksums }] = sbom.packages;
      const sha256 = createHash("sha256").update(readFileSync(archive)).digest("hex");
      expect([packageFileName, checksums[0].checksumValue]).toEqual([images[kind].archive, sha256]);
      const ofBun = sbom.relationships
        .filter((one: Record<string, string>) => JSON.stringify(one).includes("Package-bun-"))
        .map((one: Record<string, string>) => one.relationshipType);
      expect(ofBun).toEqual(["BUILD_TOOL_OF", ...(isHosted ? ["CONTAINS", "CONTAINS"] : [])]);

      // The files as they are in the layers, not as they lie about in dist/.
      const found = architectures.flatMap((architecture) => {
        const cwd = mkdtempSync(join(layout.folder, "files-"));
        const layer = layout.path(manifestOf(architecture).layers[0]);
        must("tar", compression, "--extract", "--directory", cwd, "--file", layer);
        const { stdout } = output(["find", ".", "-type", "f", "-exec", "sha256sum", "{}", "+"], { cwd });
        return [...stdout.matchAll(/^(\w+) {2}(.*)$/gm)].map(
          ([, sum, path]) => `${architecture} ${path} ${sum}`,
        );
      });
      type Checksum = { algorithm: string; checksumValue: string };
      type File = { SPDXID: string; fileName: string; checksums: Checksum[] };
      const named = sbom.files.map(({ SPDXID, fileName, checksums }: File) => {
        const sum = checksums.find(({ algorithm }) => algorithm === "SHA256")?.checksumValue;
        return `${SPDXID.split("-")[2]} ${fileName} ${sum}`;
      });
      expect(named.toSorted()).toEqual(found.toSorted());
    });

    test("the archive has nothing that the index does not name, and no time in it", () => {
      const named = index.manifests.flatMap((entry) => {
        const { config, layers } = layout.json(entry);
        return [entry, config, layers[0]].map(pathOf);
      });
      const entries = listed(archive);
      for (const [, , , day, time] of entries) expect([day, time]).toEqual(["1970-01-01", "00:00:00"]);
      expect(entries.map(([, , , , , path]) => path).toSorted()).toEqual(
        ["oci-layout", "index.json", "manifest.json", pathOf(layout.entry), ...named].toSorted(),
      );
    });

    if (isHosted) return;
    test("every layer is less than 2 KiB, the archive of all less than 48; each /pause is dist/freestanding's", () => {
      expect(statSync(archive).size).toBeLessThan(48 << 10);
      for (const architecture of architectures) {
        const [layer] = manifestOf(architecture).layers;
        expect(layer.size).toBeLessThan(2 << 10);
        const script = 'tar --gzip --extract --to-stdout --file "$0" pause | cmp - "$1"';
        const executable = join(dist, "freestanding", architecture, "pause");
        expect(output(["sh", "-c", script, layout.path(layer), executable])).toEqual(ended({}));
      }
    });
  });

needing(
  ...IMAGES,
  ...machineNeeds("sid"),
).test("the bills of materials are valid SPDX 2.3, and have no field that is not SPDX's", async () => {
  await using validator = await DebianMachine.start("sid");
  for (const kind of kinds) {
    const text = readFileSync(join(dist, images[kind].sbom), "utf8");
    writeFileSync(join(validator.folder, "in.spdx.json"), text);
    // Reading drops what it does not know.
    const files = ["-i", "/mnt/in.spdx.json", "-o", "/mnt/out.spdx.json"];
    validator.must("/usr/bin/python3", "/usr/bin/pyspdxtools", ...files);
    const out = readFileSync(join(validator.folder, "out.spdx.json"), "utf8");
    expect(JSON.parse(out.replaceAll("PACKAGE_MANAGER", "PACKAGE-MANAGER"))).toEqual(JSON.parse(text));
  }
});

needing(
  { "dpkg-query": "dpkg" },
  ...IMAGES,
).test("hosted: dpkg reads what it has of Debian's packages, and their files are as it says", () => {
  for (const architecture of ["amd64", "arm64"] as const) {
    const rootfs = join(dist, images.hosted.rootfs, architecture);
    const names = Object.keys(debianFiles(architecture));
    const fields = names.map((name) => readFileSync(join(rootfs, "var/lib/dpkg/status.d", name), "utf8"));
    using folder = temporary();
    const admindir = folder.path;
    const text = fields.map((control) => `Status: install ok installed\n${control}\n`).join("");
    writeFileSync(join(admindir, "status"), text);
    const shown = ["Package", "Architecture", "source:Package", "source:Version"];
    const format = `${shown.map((field) => `\${${field}}`).join(" ")}\\n`;
    const list = must("dpkg-query", "--admindir", admindir, "--show", "--showformat", format).split("\n");
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
