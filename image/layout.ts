/**
 * Compresses the layers of an OCI image layout anew, in place. What buildah writes depends on the compressor of the
 * Go that it was built with; and its zstd has no level 19, which is a fifth smaller.
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";

/** OCI content descriptor (image-spec, descriptor.md). */
interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
}

const compressions = {
  gzip: (tar: Uint8Array<ArrayBuffer>) => Bun.gzipSync(tar, { level: 9 }),
  zstd: (tar: Uint8Array<ArrayBuffer>) => Bun.zstdCompress(tar, { level: 19 }),
};

const parse = (bytes: Uint8Array) => JSON.parse(new TextDecoder().decode(bytes));

/** Lets the layers of all images of the layout's one index have this compression. */
export async function recompress(layout: string, compression: keyof typeof compressions): Promise<void> {
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
    }),
  );
  storeJson(top.manifests[0], index);
  writeFileSync(indexFile, JSON.stringify(top));
  for (const blob of readdirSync(blobs)) if (!used.has(blob)) rmSync(join(blobs, blob));
}
