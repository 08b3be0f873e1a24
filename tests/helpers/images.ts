/**
 * The images under test, of `npm run image`, others beside them, and what image/README.md says of them.
 */
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { images as contents, type Kind } from "../../image/contents.ts";
import type { Descriptor } from "../../image/layout.ts";
import { must, output } from "./process.ts";
import { dist, freestanding, hosted, type Program, reference, root } from "./programs.ts";
import { CC, type Needed, refusedInCI } from "./tools.ts";

export const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8"));

export interface Image {
  readonly program: Program;
  /** An OCI archive, or docker save's. */
  readonly archive: string;
  /** What the archive calls it. */
  readonly name: string;
}

export const images: readonly Image[] = [hosted, freestanding].map((program) => {
  const { archive, reference } = contents[program.name as Kind];
  return { program, archive: join(dist, archive), name: reference };
});

export const referenceImage: Image = {
  program: reference,
  archive: join(dist, "reference.tar"),
  name: "localhost/reference:1",
};

/** What every runtime is to run alike. */
export const tested: readonly Image[] = [...images, referenceImage];

/** An image that has busybox only, for the containers beside the pause container. */
export const application = { archive: join(dist, "application.tar"), name: "localhost/application:1" };
/** Its files: busybox by each name that the tests call it by. */
export const BUSYBOX = Object.fromEntries(
  ["busybox", "sh", "ip"].map((name) => [`bin/${name}`, "/bin/busybox"]),
);

/** What this came to. Each of the tests' files has its own modules, but the global object is one. */
function onceInARun(what: string, make: () => string): string {
  const how = Reflect.get(globalThis, what) ?? make();
  Reflect.set(globalThis, what, how);
  return how;
}

/** Builds them. A build that fails is no reason to skip, but Debian's packages for it may not be to be had. */
const buildImages = () =>
  onceInARun("images", () => {
    const { exitCode, stderr } = output(["npm", "--prefix", root, "run", "-s", "image"]);
    if (exitCode === 0) return "";
    if (!stderr.includes("image: apt-get")) throw new Error(stderr);
    return refusedInCI(`not to be had now: ${stderr.trimEnd().split("\n").at(-1)}`);
  });

const buildOthers = () =>
  onceInARun("other images", () => {
    // docker save's format is read by all.
    const pause = ["USER 65535:65535", 'ENTRYPOINT ["/pause"]'];
    build("docker-archive", referenceImage, { pause: reference.executable }, ...pause);
    build("docker-archive", application, BUSYBOX, "ENV PATH=/bin");
    return "";
  });

/** What `images` take. */
export const IMAGES: readonly Needed[] = [{ buildah: "buildah", git: "git", zstd: "zstd" }, buildImages];
/** What all of `tested` and the application's take. */
export const TESTED: readonly Needed[] = [
  ...IMAGES,
  { ...CC, "/bin/busybox": "busybox-static" },
  buildOthers,
];

/** Files of an image, or of a root file system: where each lies in it, and where on this machine. */
type Files = Readonly<Record<string, string>>;

export function install(folder: string, files: Files): void {
  for (const [path, from] of Object.entries(files)) {
    const to = join(folder, path);
    mkdirSync(dirname(to), { recursive: true });
    copyFileSync(from, to);
    chmodSync(to, 0o755);
  }
}

/** The libraries that a program is linked with. */
export const librariesOf = (executable: string): Files =>
  Object.fromEntries(
    [...output(["ldd", executable]).stdout.matchAll(/(\/\S+) \(/g)].map(([, path = ""]) => [path, path]),
  );

/** Builds an image, with these lines in its Containerfile, into an archive of this kind (containers-transports(5)). */
export function build(
  kind: "docker-archive" | "oci-archive",
  { archive, name }: Pick<Image, "archive" | "name">,
  files: Files,
  ...lines: readonly string[]
): void {
  const folder = mkdtempSync(join(tmpdir(), "pause-build-"));
  try {
    install(join(folder, "root"), files);
    writeFileSync(join(folder, "Containerfile"), ["FROM scratch", "COPY root /", ...lines, ""].join("\n"));
    const store = ["--root", join(folder, "store"), "--runroot", join(folder, "run")];
    const buildah = ["buildah", ...store, "--storage-driver", "vfs"];
    must(...buildah, "build", "--quiet", "--tag", name, folder);
    // No archive is written to twice. Only a push compresses.
    rmSync(archive, { force: true });
    must(...buildah, "push", "--quiet", name, `${kind}:${archive}:${name}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What an OCI archive has, unpacked. */
export class Layout implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "pause-layout-"));

  constructor(archive: string) {
    must("tar", "--extract", "--directory", this.folder, "--file", archive);
  }

  /** The file of a blob. */
  path({ digest }: Pick<Descriptor, "digest">): string {
    return join(this.folder, "blobs", digest.replace(":", "/"));
  }

  json(descriptor: Pick<Descriptor, "digest">) {
    return readJson(this.path(descriptor));
  }

  /** The one entry of index.json. */
  get entry(): Descriptor {
    return readJson(join(this.folder, "index.json")).manifests[0];
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true });
  }
}

/** Copies the repository, without these entries, node_modules and dist, into a folder. The folder may exist. */
export function copyRepository(to: string, ...without: readonly string[]): void {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(root))
    if (!["node_modules", "dist", ...without].includes(entry))
      cpSync(join(root, entry), join(to, entry), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(to, "node_modules"));
}

/** The commands under a heading of a Markdown file. They name the freestanding image; `kind` changes that. */
export function commands(heading: string, kind: Kind, file = "image/README.md"): string {
  const text = readFileSync(join(root, file), "utf8");
  const section = text.split(/^##+ /m).find((one) => one.startsWith(`${heading}\n`)) ?? "";
  const lines = section.split("\n").filter((line) => line.startsWith("    "));
  if (lines.length === 0) throw new Error(`${file} has no commands under "${heading}"`);
  return lines.join("\n").replaceAll("-freestanding", kind === "hosted" ? "" : "-freestanding");
}
