/**
 * Finishes an OCI image layout of buildah's, in place. What buildah writes depends on the compressor of the Go that it
 * was built with, and its zstd has no level 12.
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join, relative } from "node:path";

/** OCI content descriptor (image-spec, descriptor.md). */
interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  platform?: { architecture: string };
  annotations?: Record<string, string>;
}

const compressions = {
  gzip: (tar: Uint8Array<ArrayBuffer>) => Bun.gzipSync(tar, { level: 9 }),
  zstd: (tar: Uint8Array<ArrayBuffer>) => Bun.zstdCompress(tar, { level: 12 }),
};

const parse = (bytes: Uint8Array) => JSON.parse(new TextDecoder().decode(bytes));

/** The architecture that `docker load` gets from Docker's own store of images, which knows one in an archive. */
const DOCKER = "amd64";

/**
 * Lets the layers of all images of the layout's one index have this compression, and writes manifest.json, by which
 * `docker load` reads an archive of the layout into a store that does not know OCI's (what docker save wrote up to 24,
 * and writes beside OCI's files since 25).
 */
export async function finish(
  layout: string,
  reference: string,
  compression: keyof typeof compressions,
): Promise<void> {
  const blobs = join(layout, "blobs/sha256");
  const blobOf = (digest: string) => join(blobs, digest.replace("sha256:", ""));
  const used = new Set<string>();

  /** Stores a blob and lets its descriptor say so. */
  const store = (descriptor: Descriptor, bytes: Uint8Array) => {
    descriptor.digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    descriptor.size = bytes.length;
    writeFileSync(blobOf(descriptor.digest), bytes);
    used.add(basename(blobOf(descriptor.digest)));
  };
  /** Stores a document again after its parts have changed. */
  const storeJson = (descriptor: Descriptor, document: object) =>
    store(descriptor, new TextEncoder().encode(JSON.stringify(document)));

  const indexFile = join(layout, "index.json");
  const top: { manifests: [Descriptor] } = parse(readFileSync(indexFile));
  const index: { manifests: Descriptor[] } = parse(readFileSync(blobOf(top.manifests[0].digest)));
  await Promise.all(
    index.manifests.map(async (entry) => {
      const manifest: { config: Descriptor; layers: Descriptor[] } = parse(
        readFileSync(blobOf(entry.digest)),
      );
      used.add(basename(blobOf(manifest.config.digest)));
      for (const layer of manifest.layers) {
        const tar = Bun.gunzipSync(readFileSync(blobOf(layer.digest)));
        layer.mediaType = `application/vnd.oci.image.layer.v1.tar+${compression}`;
        store(layer, await compressions[compression](tar));
      }
      storeJson(entry, manifest);
      // skopeo (containers/image 5.25 and later) takes an index for one without zstd otherwise, and wants to rewrite it.
      if (compression === "zstd")
        entry.annotations = { ...entry.annotations, "io.github.containers.compression.zstd": "true" };
      if (entry.platform?.architecture === DOCKER) {
        const [Config, ...Layers] = [manifest.config, ...manifest.layers].map(({ digest }) =>
          relative(layout, blobOf(digest)),
        );
        const images = [{ Config, RepoTags: [reference], Layers }];
        writeFileSync(join(layout, "manifest.json"), JSON.stringify(images));
      }
    }),
  );
  storeJson(top.manifests[0], index);
  writeFileSync(indexFile, JSON.stringify(top));
  for (const blob of readdirSync(blobs)) if (!used.has(blob)) rmSync(join(blobs, blob));
}
