/**
 * The images that are compared, and what they weigh: those that `npm run image` makes, and of the peers the least that
 * they run with.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { type Image, images } from "../tests/helpers/images.ts";
import { must, output } from "../tests/helpers/process.ts";
import type { Workshop } from "../tests/helpers/workshop.ts";
import type { Peer } from "./peers.ts";

/** An OCI archive, and what it calls the image. */
export type Archive = Pick<Image, "archive" | "name">;

/** This peer's image. */
export function imageOf({ name, command }: Peer, workshop: Workshop): Archive {
  const ours = images.find(({ program }) => program.name === name);
  if (ours !== undefined) {
    if (!existsSync(ours.archive)) throw new Error(`${ours.archive} is missing: npm run image`);
    return ours;
  }
  const files: Record<string, string> = {};
  // An init starts a program, which has to be there.
  const executables = command.map((word) => Bun.which(word)).filter((path) => path !== null);
  for (const path of executables) {
    files[`root/${basename(path)}`] = path;
    for (const [, library = ""] of output(["ldd", path]).stdout.matchAll(/(\/\S+) \(/g))
      files[`root${library}`] = library;
  }
  const inside = command.map((word) => (Bun.which(word) === null ? word : `/${basename(word)}`));
  const archive = join(workshop.folder, `${basename(executables[0] ?? name)}.tar`);
  const image = `localhost/bench-${basename(executables[0] ?? name)}:1`;
  workshop.build(
    image,
    archive,
    `FROM scratch\nCOPY root /\nUSER 65535:65535\nENTRYPOINT ${JSON.stringify(inside)}\n`,
    files,
  );
  return { archive, name: image };
}

interface Descriptor {
  digest: string;
  size: number;
  platform?: { architecture: string };
}

/** KiB of an image for this machine: what is pulled (the manifest, the configuration and the layers), and its files. */
export function weigh({ archive }: Archive): { compressed: number; unpacked: number } {
  const folder = mkdtempSync(join(tmpdir(), "pause-bench-"));
  try {
    must("tar", "--extract", "--directory", folder, "--file", archive);
    const path = ({ digest }: Descriptor) => join(folder, "blobs", digest.replace(":", "/"));
    const json = (descriptor: Descriptor) => JSON.parse(readFileSync(path(descriptor), "utf8"));
    let [entry]: Descriptor[] = JSON.parse(readFileSync(join(folder, "index.json"), "utf8")).manifests;
    const index: Descriptor[] | undefined = entry && json(entry).manifests;
    const architecture = process.arch === "x64" ? "amd64" : process.arch;
    if (index !== undefined) entry = index.find(({ platform }) => platform?.architecture === architecture);
    if (entry === undefined) throw new Error(`${archive} has no image for ${architecture}`);
    const { config, layers }: { config: Descriptor; layers: Descriptor[] } = json(entry);
    const files = layers.flatMap((layer) => [
      ...must("tar", "--list", "--verbose", "--file", path(layer)).matchAll(/^-\S+ \S+ +(\d+)/gm),
    ]);
    const sum = (sizes: readonly number[]) => sizes.reduce((total, size) => total + size, 0) / 1024;
    return {
      compressed: sum([entry, config, ...layers].map(({ size }) => size)),
      unpacked: sum(files.map(([, size]) => Number(size))),
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
