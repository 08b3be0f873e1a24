/**
 * What the images are, written once: the builder, the bills of materials, the release and the tests read it here.
 */
import { basename, resolve } from "node:path";
import { architectures as freestanding } from "../ffi/freestanding/architectures.ts";
import manifest from "../package.json" with { type: "json" };
import type { Commit } from "./commit.ts";

export const root = resolve(import.meta.dir, "..");

const { name, version, description }: { name: string; version: string; description: string } = manifest;

/** An image, with the names of what is made for it, in dist/. */
const image = (suffix: string, licenses: string, architectures: readonly string[]) => ({
  tag: `${version}${suffix}`,
  reference: `localhost/${name}:${version}${suffix}`,
  licenses,
  architectures,
  rootfs: `rootfs${suffix}`,
  archive: `pause${suffix}.oci.tar`,
  sbom: `pause${suffix}.spdx.json`,
});

/** Where Debian's libc6 has the loader and the libraries, and Bun's name of the architecture. */
export const hosted = {
  amd64: {
    target: "bun-linux-x64",
    loader: "/lib64/ld-linux-x86-64.so.2",
    folder: "/lib/x86_64-linux-gnu",
  },
  arm64: {
    target: "bun-linux-arm64",
    loader: "/lib/ld-linux-aarch64.so.1",
    folder: "/lib/aarch64-linux-gnu",
  },
} as const;
export type HostedArchitecture = keyof typeof hosted;
export const hostedArchitectures = Object.keys(hosted) as HostedArchitecture[];

/** What the licence asks to go with every copy (section 4): in the hosted image, and beside the freestanding one. */
export const NOTICES = ["LICENSE", "NOTICE"];

/** What Bun is, with JavaScriptCore in it; its other parts are in what the image has as /usr/share/doc/bun/copyright. */
export const BUN_LICENSES = "MIT AND LGPL-2.0-or-later";

export const images = {
  freestanding: image("-freestanding", "Apache-2.0", Object.keys(freestanding)),
  hosted: image("", `Apache-2.0 AND ${BUN_LICENSES} AND LGPL-2.1-or-later`, hostedArchitectures),
};
export type Kind = keyof typeof images;
export const kinds = Object.keys(images) as Kind[];

/** The variants that registries give the architectures that have any (image-spec, image-index.md, "Platform Variants"). */
const variants: Readonly<Record<string, string>> = { arm: "v7", arm64: "v8" };

/** An image's platform (image-spec, image-index.md). */
export interface Platform {
  architecture: string;
  os: "linux";
  variant?: string;
}

export const platformOf = (architecture: string): Platform => {
  const variant = variants[architecture];
  return { architecture, os: "linux", ...(variant && { variant }) };
};

/** What Bun links. */
const libraries = ["libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2"];

/** The loader and the libraries beside /pause in the hosted image. */
export const glibcOf = (architecture: HostedArchitecture): string[] => {
  const { loader, folder } = hosted[architecture];
  return [loader, ...libraries.map((library) => `${folder}/${library}`)];
};

/** The licences that the copyright files of libc6 and Bun refer to. */
const licenses = ["Apache-2.0", "BSD", "GPL-2", "LGPL-2", "LGPL-2.1"];

/**
 * What the hosted image has of Debian's packages: by package, where a file lies in the image and where in the package.
 * Scanners learn from /etc/os-release whose packages they are.
 */
export const debianFiles = (architecture: HostedArchitecture): Record<string, Record<string, string>> => {
  const asIs = (paths: readonly string[]) => Object.fromEntries(paths.map((path) => [path, path]));
  // Where programs look for the loader there is a link to it, beside the libraries.
  const { folder } = hosted[architecture];
  const glibc = glibcOf(architecture).map((path) => [path, `${folder}/${basename(path)}`]);
  return {
    libc6: { ...Object.fromEntries(glibc), ...asIs(["/usr/share/doc/libc6/copyright"]) },
    "base-files": {
      "/etc/os-release": "/usr/lib/os-release",
      ...asIs([
        "/usr/share/doc/base-files/copyright",
        ...licenses.map((license) => `/usr/share/common-licenses/${license}`),
      ]),
    },
  };
};

/** Where the source is, as a page: what package.json's `repository` says, if it does. */
export const repository = ((): string | undefined => {
  const { repository }: { name: string; repository?: string | { url: string } } = manifest;
  const url = typeof repository === "object" ? repository.url : repository;
  return url?.replace(/^git\+/, "").replace(/\.git$/, "");
})();

/** What is said of an image, in its labels and its annotations (image-spec, annotations.md). */
export const annotations = (kind: Kind, { revision, time }: Commit): Record<string, string> =>
  Object.fromEntries(
    Object.entries({
      title: name,
      description,
      version,
      revision,
      created: timestamp(time),
      licenses: images[kind].licenses,
      url: repository,
      source: repository,
      documentation: repository && `${repository}#readme`,
    }).flatMap(([key, value]) => (value === undefined ? [] : [[`org.opencontainers.image.${key}`, value]])),
  );

/** A time in seconds since 1970 as RFC 3339 has it, which OCI and SPDX take. */
export const timestamp = (seconds: number): string =>
  new Date(seconds * 1000).toISOString().replace(".000Z", "Z");
