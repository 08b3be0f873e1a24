/**
 * What the images are, written once: the builder, the bills of materials and the tests read it here.
 */
import { resolve } from "node:path";
import { name, version } from "../package.json" with { type: "json" };

export const root = resolve(import.meta.dir, "..");

/** An image, with the names of what is made for it, in dist/. */
const image = (suffix: string, licenses: string) => ({
  reference: `localhost/${name}:${version}${suffix}`,
  licenses,
  rootfs: `rootfs${suffix}`,
  archive: `pause${suffix}.oci.tar`,
  sbom: `pause${suffix}.spdx.json`,
});

export const images = {
  freestanding: image("-freestanding", "Apache-2.0"),
  hosted: image("", "Apache-2.0 AND MIT AND LGPL-2.1-or-later"),
};
export type Kind = keyof typeof images;

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

/** What Bun links. */
const libraries = ["libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2"];

/** The loader and the libraries beside /pause in the hosted image. */
export const glibcOf = (architecture: HostedArchitecture): string[] => {
  const { loader, folder } = hosted[architecture];
  return [loader, ...libraries.map((library) => `${folder}/${library}`)];
};
