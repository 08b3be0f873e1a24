/**
 * The images that are compared, and what they weigh: those that `npm run image` makes, and of the peers the least that
 * they run with.
 */
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import type { Descriptor, Index, Manifest } from "../image/layout.ts";
import { build, type Image, images, Layout, librariesOf } from "../tests/helpers/images.ts";
import type { ThisMachine } from "../tests/helpers/places.ts";
import { must } from "../tests/helpers/process.ts";
import { architecture } from "../tests/helpers/programs.ts";
import type { Peer } from "./peers.ts";

/** An OCI archive, and what it calls the image. */
export type Archive = Pick<Image, "archive" | "name">;

/** This peer's image. */
export function imageOf({ name, command }: Peer, workshop: ThisMachine): Archive {
  const ours = images.find(({ program }) => program.name === name);
  if (ours !== undefined) {
    if (!existsSync(ours.archive)) throw new Error(`${ours.archive} is missing: npm run image`);
    return ours;
  }
  // An init starts a program, which has to be there.
  const executables = command.map((word) => Bun.which(word)).filter((path) => path !== null);
  const files = executables.map((path) => ({ [basename(path)]: path, ...librariesOf(path) }));
  const inside = command.map((word) => (Bun.which(word) === null ? word : `/${basename(word)}`));
  const id = basename(executables[0] ?? name);
  const image = { archive: join(workshop.folder, `${id}.tar`), name: `localhost/bench-${id}:1` };
  const entrypoint = `ENTRYPOINT ${JSON.stringify(inside)}`;
  build("oci-archive", image, Object.assign({}, ...files), "USER 65535:65535", entrypoint);
  return image;
}

/** KiB of an image for this machine: what is pulled (the manifest, the configuration and the layers), and its files. */
export function weigh({ archive }: Archive): { compressed: number; unpacked: number } {
  using layout = new Layout(archive);
  const { manifests = [layout.entry] }: Partial<Index> = layout.json(layout.entry);
  const isOurs = ({ platform }: Descriptor) => (platform?.architecture ?? architecture) === architecture;
  const entry = manifests.find(isOurs);
  if (entry === undefined) throw new Error(`${archive} has no image for ${architecture}`);
  const { config, layers }: Manifest = layout.json(entry);
  const files = layers.flatMap((layer) => [
    ...must("tar", "--list", "--verbose", "--file", layout.path(layer)).matchAll(/^-\S+ \S+ +(\d+)/gm),
  ]);
  const sum = (sizes: readonly number[]) => sizes.reduce((total, size) => total + size, 0) / 1024;
  return {
    compressed: sum([entry, config, ...layers].map(({ size }) => size)),
    unpacked: sum(files.map(([, size]) => Number(size))),
  };
}
