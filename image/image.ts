/**
 * Makes the images: OCI archives in dist/, each an index of all its architectures, with their bills of materials.
 *
 *     npm run image [-- freestanding | hosted]
 *
 * Two builds of one commit are the same, byte for byte; of the hosted image, as long as Debian 12's packages are.
 */
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { create } from "tar";
import { type Commit, commit } from "./commit.ts";
import {
  annotations,
  debianFiles,
  hosted,
  hostedArchitectures,
  images,
  type Kind,
  kinds,
  NOTICES,
  platformOf,
  root,
} from "./contents.ts";
import { debianPackages } from "./debian.ts";
import { finish, indexOf, sha256 } from "./layout.ts";
import { type RootFilesystem, sbom } from "./sbom.ts";
import { fail, need, run, say } from "./tools.ts";

const dist = join(root, "dist");

/** Puts a file into a root file system: a copy, or this text. */
function install(
  rootfs: string,
  path: string,
  from: { file: string } | { text: string },
  mode: number,
): void {
  const to = join(rootfs, path);
  mkdirSync(dirname(to), { recursive: true });
  if ("file" in from) copyFileSync(from.file, to);
  else writeFileSync(to, from.text);
  chmodSync(to, mode);
}

/** Bun's licence and its parts', as bun-types of the same version has them, and what they refer to that Debian has not. */
const bunCopyright = (): string =>
  ["node_modules/bun-types/docs/project/license.mdx", "image/MIT"]
    .map((file) => readFileSync(join(root, file), "utf8").replace(/^---\n.*?\n---\n+/s, ""))
    .join("\n");

const rootFilesystems: Record<Kind, (folder: string, work: string) => RootFilesystem[]> = {
  freestanding(folder) {
    const { architectures } = images.freestanding;
    say(`freestanding: machine code for ${architectures.length} architectures`);
    run(["npm", "run", "-s", "build:freestanding"]);
    return architectures.map((architecture) => {
      const file = join(dist, "freestanding", architecture, "pause");
      install(join(folder, architecture), "/pause", { file }, 0o755);
      return { architecture, packages: [], files: [{ path: "/pause" }] };
    });
  },

  hosted(folder, work) {
    say("hosted: libc6 and base-files of Debian 12, by apt");
    const names = Object.keys(debianFiles("amd64"));
    const packages = debianPackages(work, hostedArchitectures, names);
    return hostedArchitectures.map((architecture) => {
      const rootfs = join(folder, architecture);
      const there = packages[architecture];
      say(
        `hosted: bun build for ${architecture}, with ${there.map((one) => `${one.name} ${one.version}`).join(", ")}`,
      );
      mkdirSync(rootfs, { recursive: true });
      const options = [`--target=${hosted[architecture].target}`, "--outfile", join(rootfs, "pause")];
      run(["npm", "run", "-s", "build:hosted", "--", ...options]);
      chmodSync(join(rootfs, "pause"), 0o755);
      const files: RootFilesystem["files"][number][] = [{ path: "/pause" }];
      const add = (path: string, from: { file: string } | { text: string }) => {
        install(rootfs, path, from, 0o644);
        files.push({ path });
      };
      for (const of of there) {
        const md5s = Object.entries(debianFiles(architecture)[of.name] ?? {}).map(([path, inPackage]) => {
          const file = join(of.folder, inPackage);
          install(rootfs, path, { file }, path.startsWith("/lib") ? 0o755 : 0o644);
          files.push({ path, of });
          return `${createHash("md5").update(readFileSync(file)).digest("hex")}  ${path.slice(1)}\n`;
        });
        // As distroless images have it: where scanners look for packages, and no more of them than is there.
        add(`/var/lib/dpkg/status.d/${of.name}`, { text: of.control });
        add(`/var/lib/dpkg/status.d/${of.name}.md5sums`, { text: md5s.join("") });
      }
      add("/usr/share/doc/bun/copyright", { text: bunCopyright() });
      for (const name of NOTICES) add(`/usr/share/doc/pause/${name}`, { file: join(root, name) });
      return { architecture, packages: there, files };
    });
  },
};

/** Makes an OCI image layout of these root file systems: an index of one image for each. */
async function layout(kind: Kind, now: Commit, work: string): Promise<string> {
  const { reference, rootfs, architectures } = images[kind];
  // A store of its own: nothing is left in the user's.
  const store = ["--root", join(work, "store"), "--runroot", join(work, "run"), "--storage-driver", "vfs"];
  const buildah = (...args: readonly string[]) => run(["buildah", ...store, ...args]);
  buildah("manifest", "create", reference);
  for (const architecture of architectures) {
    const { os, variant } = platformOf(architecture);
    const platform = [os, architecture, ...(variant ? [variant] : [])].join("/");
    say(`${kind}: image for ${platform}`);
    const same = ["--timestamp", String(now.time), "--layers=false", "--identity-label=false"];
    const options = ["--quiet", "--format", "oci", "--platform", platform, "--manifest", reference];
    const file = ["--file", join(root, "Containerfile"), join(dist, rootfs)];
    buildah("build", ...options, ...same, ...file);
  }
  const folder = join(work, "oci");
  buildah("manifest", "push", "--quiet", "--all", "--format", "oci", reference, `oci:${folder}:${reference}`);
  const compression = kind === "hosted" ? "zstd" : "gzip";
  say(`${kind}: ${compression} of ${architectures.length} layers`);
  await finish(folder, { reference, compression, annotations: annotations(kind, now) });
  return folder;
}

async function make(kind: Kind, now: Commit): Promise<void> {
  const { rootfs, archive, sbom: bill } = images[kind];
  const work = mkdtempSync(join(tmpdir(), "pause-image-"));
  process.on("exit", () => rmSync(work, { recursive: true, force: true }));
  rmSync(join(dist, rootfs), { recursive: true, force: true });
  const contents = rootFilesystems[kind](join(dist, rootfs), work);
  const oci = await layout(kind, now, work);
  const file = join(dist, archive);
  await create({ cwd: oci, file, portable: true, mtime: new Date(0) }, [
    "oci-layout",
    "index.json",
    "manifest.json",
    ...readdirSync(join(oci, "blobs/sha256"))
      .toSorted()
      .map((blob) => `blobs/sha256/${blob}`),
  ]);
  const bytes = readFileSync(file);
  const index = indexOf(file);
  writeFileSync(join(dist, bill), sbom(kind, contents, now, bytes, index));
  say(`${kind}: index ${index.digest}, of ${now.revision ?? "no commit"}`);
  say(`${kind}: dist/${archive}, ${bytes.length} bytes, SHA-256 ${sha256(bytes)}`);
}

const isKind = (text: string): text is Kind => text in images;
const wanted = Bun.argv.slice(2);
const chosen = wanted.length > 0 ? wanted.filter(isKind) : kinds;
if (chosen.length < wanted.length) fail(`the images are ${kinds.join(" and ")}`);
need(["npm"], "it comes with Node.js");
need(["buildah"], "apt-get install buildah, dnf install buildah …");
process.umask(0o022);
// Ends as usual then, and takes its folders away.
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));
const now = commit();
for (const kind of chosen) await make(kind, now);
