/**
 * Makes the images: OCI archives in dist/, each an index of all its architectures, with their bills of materials.
 *
 *     npm run image [-- freestanding | hosted]
 *
 * Two builds of one commit are the same, byte for byte; of the hosted image, as long as Debian 12's libc6 is.
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
import { architectures } from "../ffi/freestanding/architectures.ts";
import { description, name, version } from "../package.json" with { type: "json" };
import { glibcOf, type HostedArchitecture, hosted, images, type Kind, root } from "./contents.ts";
import { finish } from "./layout.ts";
import { libc6 } from "./libc6.ts";
import { type RootFilesystem, sbom } from "./sbom.ts";
import { fail, need, run } from "./tools.ts";

const dist = join(root, "dist");

/** Puts a file into a root file system. */
function install(from: string, rootfs: string, path: string): void {
  const to = join(rootfs, path);
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
  chmodSync(to, 0o755);
}

const rootFilesystems: Record<Kind, (folder: string, work: string) => RootFilesystem[]> = {
  freestanding(folder) {
    run(["npm", "run", "-s", "build:freestanding"]);
    const built = join(dist, "freestanding");
    return Object.keys(architectures).map((architecture) => {
      install(join(built, architecture, "pause"), join(folder, architecture), "/pause");
      return { architecture, libraries: [] };
    });
  },

  hosted(folder, work) {
    const both = Object.keys(hosted) as HostedArchitecture[];
    const packages = libc6(work, both);
    return both.map((architecture) => {
      const rootfs = join(folder, architecture);
      const libc = packages[architecture];
      process.stdout.write(`${architecture}: libc6 ${libc.version}\n`);
      mkdirSync(rootfs, { recursive: true });
      const options = [`--target=${hosted[architecture].target}`, "--outfile", join(rootfs, "pause")];
      run(["npm", "run", "-s", "build:hosted", "--", ...options]);
      chmodSync(join(rootfs, "pause"), 0o755);
      const libraries = glibcOf(architecture);
      // The loader lies beside the libraries in the package; where programs look for it, it has a link.
      const inPackage = (path: string) =>
        join(libc.folder, hosted[architecture].folder, path.slice(path.lastIndexOf("/")));
      for (const path of libraries) install(inPackage(path), rootfs, path);
      return { architecture, libraries, libc6: libc.version };
    });
  },
};

/** Makes an OCI image layout of these root file systems: an index of one image for each. */
async function layout(kind: Kind, names: readonly string[], work: string): Promise<string> {
  const { reference, rootfs, licenses } = images[kind];
  // A store of its own: nothing is left in the user's.
  const store = ["--root", join(work, "store"), "--runroot", join(work, "run"), "--storage-driver", "vfs"];
  const buildah = (...args: readonly string[]) => run(["buildah", ...store, ...args]);
  const labels = Object.entries({ title: name, description, version, licenses }).flatMap(([label, value]) => [
    "--label",
    `org.opencontainers.image.${label}=${value}`,
  ]);
  buildah("manifest", "create", reference);
  for (const architecture of names) {
    const platform = architecture === "arm" ? "linux/arm/v7" : `linux/${architecture}`;
    const same = ["--timestamp", "0", "--layers=false", "--identity-label=false"];
    const options = ["--quiet", "--format", "oci", "--platform", platform, "--manifest", reference];
    const file = ["--file", join(root, "Containerfile"), join(dist, rootfs)];
    buildah("build", ...options, ...same, ...labels, ...file);
  }
  const folder = join(work, "oci");
  buildah("manifest", "push", "--quiet", "--all", "--format", "oci", reference, `oci:${folder}:${reference}`);
  await finish(folder, reference, kind === "hosted" ? "zstd" : "gzip");
  return folder;
}

async function make(kind: Kind): Promise<void> {
  const { rootfs, archive, sbom: bill } = images[kind];
  const work = mkdtempSync(join(tmpdir(), "pause-image-"));
  process.on("exit", () => rmSync(work, { recursive: true, force: true }));
  rmSync(join(dist, rootfs), { recursive: true, force: true });
  const contents = rootFilesystems[kind](join(dist, rootfs), work);
  const names = contents.map(({ architecture }) => architecture);
  const oci = await layout(kind, names, work);
  const files = readdirSync(join(oci, "blobs/sha256")).toSorted();
  await create({ cwd: oci, file: join(dist, archive), portable: true, mtime: new Date(0) }, [
    "oci-layout",
    "index.json",
    "manifest.json",
    ...files.map((file) => `blobs/sha256/${file}`),
  ]);
  writeFileSync(join(dist, bill), sbom(kind, contents));

  const bytes = readFileSync(join(dist, archive));
  const digest = createHash("sha256").update(bytes).digest("hex");
  process.stdout.write(`dist/${archive}: ${names.join(" ")}, ${bytes.length} bytes, ${digest}\n`);
}

const isKind = (text: string): text is Kind => text in images;
const wanted = Bun.argv.slice(2);
const kinds = wanted.length > 0 ? wanted.filter(isKind) : (Object.keys(images) as Kind[]);
if (kinds.length < wanted.length) fail(`the images are ${Object.keys(images).join(" and ")}`);
need(["npm"], "it comes with Node.js");
need(["buildah"], "apt-get install buildah, dnf install buildah …");
process.umask(0o022);
// Ends as usual then, and takes its folders away.
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));
for (const kind of kinds) await make(kind);
