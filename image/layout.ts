/**
 * An OCI image layout (image-spec, image-layout.md): finishing buildah's, in place, and reading an archive of one.
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { list } from "tar";
import { platformOf } from "./contents.ts";

/** OCI content descriptor (image-spec, descriptor.md). */
export interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  platform?: { architecture: string; os: string; variant?: string };
  annotations?: Record<string, string>;
}

/** An index of images, one for each platform (image-spec, image-index.md). */
export interface Index {
  manifests: Descriptor[];
  annotations?: Record<string, string>;
}

/** An image (image-spec, manifest.md). */
export interface Manifest {
  config: Descriptor;
  layers: Descriptor[];
  annotations?: Record<string, string>;
}

interface Config {
  architecture: string;
  variant?: string;
  config: { Labels?: Record<string, string> };
}

// buildah's output depends on the compressor of the Go that it was built with, and its zstd has no level 12.
const compressions = {
  gzip: (tar: Uint8Array<ArrayBuffer>) => Bun.gzipSync(tar, { level: 9 }),
  zstd: (tar: Uint8Array<ArrayBuffer>) => Bun.zstdCompress(tar, { level: 12 }),
};

const parse = (bytes: Uint8Array) => JSON.parse(new TextDecoder().decode(bytes));

export const sha256 = (bytes: Uint8Array | string): string =>
  createHash("sha256").update(bytes).digest("hex");

/** The architecture that `docker load` gets into Docker's own store of images, which knows one in an archive. */
const DOCKER = "amd64";

/** How a layout is finished. */
export interface Finish {
  reference: string;
  compression: keyof typeof compressions;
  /** What is said of the image: annotations of the index and its images, and their labels. */
  annotations: Record<string, string>;
}

/**
 * Compresses the layers of all images of the layout's one index, annotates all, and writes manifest.json, by which
 * `docker load` reads an archive of the layout into a store that does not know OCI's: docker save's format, which it
 * writes beside OCI's files since Docker 25.
 */
export async function finish(layout: string, { reference, compression, annotations }: Finish): Promise<void> {
  const pathOf = (digest: string) => `blobs/sha256/${digest.replace("sha256:", "")}`;
  const read = (digest: string) => readFileSync(join(layout, pathOf(digest)));
  const used = new Set<string>();

  /** Stores a blob and lets its descriptor say so. */
  const store = (descriptor: Descriptor, bytes: Uint8Array) => {
    descriptor.digest = `sha256:${sha256(bytes)}`;
    descriptor.size = bytes.length;
    writeFileSync(join(layout, pathOf(descriptor.digest)), bytes);
    used.add(basename(pathOf(descriptor.digest)));
  };
  /** Stores a document again after its parts have changed. */
  const storeJson = (descriptor: Descriptor, document: object) =>
    store(descriptor, new TextEncoder().encode(JSON.stringify(document)));

  const indexFile = join(layout, "index.json");
  const top: { manifests: [Descriptor] } = parse(readFileSync(indexFile));
  const index: Index = parse(read(top.manifests[0].digest));
  await Promise.all(
    index.manifests.map(async (entry) => {
      const manifest: Manifest = parse(read(entry.digest));
      const config: Config = parse(read(manifest.config.digest));
      entry.platform = platformOf(config.architecture);
      // skopeo (containers/image 5.25 and later) takes an index for one without zstd otherwise, and wants to rewrite it.
      if (compression === "zstd") entry.annotations = { "io.github.containers.compression.zstd": "true" };
      Object.assign(config, entry.platform);
      config.config.Labels = annotations;
      storeJson(manifest.config, config);
      for (const layer of manifest.layers) {
        const tar = Bun.gunzipSync(read(layer.digest));
        layer.mediaType = `application/vnd.oci.image.layer.v1.tar+${compression}`;
        store(layer, await compressions[compression](tar));
      }
      // buildah's own name a base that there is not.
      manifest.annotations = annotations;
      storeJson(entry, manifest);
      if (config.architecture === DOCKER) {
        const [Config, ...Layers] = [manifest.config, ...manifest.layers].map(({ digest }) => pathOf(digest));
        writeFileSync(
          join(layout, "manifest.json"),
          JSON.stringify([{ Config, RepoTags: [reference], Layers }]),
        );
      }
    }),
  );
  index.annotations = annotations;
  storeJson(top.manifests[0], index);
  writeFileSync(indexFile, JSON.stringify(top));
  const blobs = join(layout, "blobs/sha256");
  for (const blob of readdirSync(blobs)) if (!used.has(blob)) rmSync(join(blobs, blob));
}

/** The one index of an archive of a layout, with its digest. */
export function indexOf(archive: string): { digest: string; index: Index } {
  const texts = new Map<string, string>();
  list({
    file: archive,
    sync: true,
    // Layers are no texts, and large.
    filter: (_, entry) => entry.size < 1 << 20,
    onReadEntry: (entry) => {
      const chunks: Buffer[] = [];
      entry.on("data", (chunk) => chunks.push(chunk));
      entry.on("end", () => texts.set(entry.path, Buffer.concat(chunks).toString()));
    },
  });
  const top: { manifests: [Descriptor] } = JSON.parse(texts.get("index.json") ?? "");
  const [{ digest }] = top.manifests;
  return { digest, index: JSON.parse(texts.get(`blobs/sha256/${digest.replace("sha256:", "")}`) ?? "") };
}
