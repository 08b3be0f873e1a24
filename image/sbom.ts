/**
 * The bill of materials of an image, as SPDX 2.3 JSON (clause numbers are that specification's): the index, an image for
 * each platform with every file of it, Debian's packages that some of the files are of, and Bun.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import manifest from "../package.json" with { type: "json" };
import type { Commit } from "./commit.ts";
import { BUN_LICENSES, images, type Kind, repository, root, timestamp } from "./contents.ts";
import type { DebianPackage } from "./debian.ts";
import { type Index, sha256 } from "./layout.ts";
import { run } from "./tools.ts";

/** What is in the image for an architecture. */
export interface RootFilesystem {
  architecture: string;
  packages: readonly DebianPackage[];
  /** Where they lie in the image, and of which package they are. */
  files: readonly { path: string; of?: DebianPackage }[];
}

/** A package (clause 7). */
export interface Package {
  SPDXID: string;
  name: string;
  checksums?: readonly { algorithm: string; checksumValue: string }[];
  externalRefs?: readonly { referenceLocator: string }[];
  [field: string]: unknown;
}

export interface Document {
  packages: Package[];
  [field: string]: unknown;
}

const { name, version, author }: { name: string; version: string; author: string } = manifest;
/** init.ts follows pause.c line for line. */
const COPYRIGHT = `Copyright 2016 The Kubernetes Authors\nCopyright 2026 ${author}`;
const NPM = "npm sbom --package-lock-only --sbom-format spdx --sbom-type application";
const NONE = "NOASSERTION";

/** A package URL (purl-spec). */
const purl = (type: string, path: string, version: string, qualifiers: Record<string, string> = {}) => {
  const query = Object.entries(qualifiers).map(([key, value]) => `${key}=${encodeURIComponent(value)}`);
  const url = `pkg:${type}/${path}@${encodeURIComponent(version)}`;
  return {
    externalRefs: [
      {
        referenceCategory: "PACKAGE-MANAGER",
        referenceType: "purl",
        referenceLocator: query.length > 0 ? `${url}?${query.join("&")}` : url,
      },
    ],
  };
};

const checksum = (algorithm: string, checksumValue: string) => ({ algorithm, checksumValue });

/** What is said of the index and of its images alike. */
const ours = (kind: Kind) => ({
  name,
  versionInfo: version,
  supplier: `Organization: ${author}`,
  downloadLocation: NONE,
  ...(repository && { homepage: repository }),
  primaryPackagePurpose: "CONTAINER",
  licenseConcluded: images[kind].licenses,
  licenseDeclared: images[kind].licenses,
  copyrightText: COPYRIGHT,
});

/** A package of Debian's, with the purl by which scanners find it in Debian's security tracker. */
const debian = (SPDXID: string, architecture: string, it: DebianPackage): Package => {
  const license = { libc6: "LGPL-2.1-or-later" }[it.name] ?? NONE;
  return {
    SPDXID,
    name: it.name,
    versionInfo: it.version,
    packageFileName: it.file,
    supplier: "Organization: Debian",
    downloadLocation: NONE,
    filesAnalyzed: false,
    checksums: [checksum("SHA256", it.sha256)],
    licenseConcluded: license,
    licenseDeclared: license,
    licenseComments: `In the image: /usr/share/doc/${it.name}/copyright`,
    copyrightText: NONE,
    ...purl("deb", `debian/${it.name}`, it.version, {
      arch: architecture,
      distro: "debian-12",
      ...(it.source !== it.name && { upstream: it.source }),
    }),
  };
};

/** Bun, as npm knows it. */
function bun(): Package {
  const { packages } = JSON.parse(run(NPM.split(" "))) as Document;
  const it = packages.find((one) => one.name === "bun");
  if (it === undefined) throw new Error("npm sbom names no bun");
  return {
    ...it,
    packageFileName: `bun-${it.versionInfo}.tgz`,
    supplier: "Organization: Oven",
    homepage: "https://bun.com",
    licenseConcluded: BUN_LICENSES,
    licenseComments: "Its other parts and their licences: /usr/share/doc/bun/copyright in the hosted image",
    copyrightText: NONE,
  };
}

/** The text of the bill of materials of this archive, which has this index. */
export function sbom(
  kind: Kind,
  contents: readonly RootFilesystem[],
  { time }: Commit,
  archive: Uint8Array,
  { digest, index }: { digest: string; index: Index },
): string {
  const { archive: packageFileName, reference, rootfs, tag } = images[kind];
  const relationships: object[] = [];
  const relate = (spdxElementId: string, relationshipType: string, relatedSpdxElement: string) =>
    relationships.push({ spdxElementId, relationshipType, relatedSpdxElement });
  const files: object[] = [];

  const whole: Package = {
    SPDXID: "SPDXRef-Package-index",
    ...ours(kind),
    packageFileName,
    filesAnalyzed: false,
    checksums: [checksum("SHA256", sha256(archive))],
    ...purl("oci", name, digest, { tag }),
  };
  const tool = bun();
  const packages = [whole, tool];
  relate("SPDXRef-DOCUMENT", "DESCRIBES", whole.SPDXID);
  relate(tool.SPDXID, "BUILD_TOOL_OF", whole.SPDXID);

  for (const { architecture, packages: of, files: paths } of contents) {
    const id = (what: string, path: string) =>
      `SPDXRef-${what}-${architecture}${path.replace(/[^A-Za-z0-9.]/g, "-")}`;
    const image = id("Package-image", "");
    relate(image, "VARIANT_OF", whole.SPDXID);
    // The hosted executable is Bun with our script in it; in the freestanding one nothing is Bun's.
    if (kind === "hosted") relate(image, "CONTAINS", tool.SPDXID);
    for (const one of of) {
      packages.push(debian(id("Package", `-${one.name}`), architecture, one));
      relate(image, "CONTAINS", id("Package", `-${one.name}`));
    }
    const sha1s = paths.map(({ path, of }) => {
      const bytes = readFileSync(join(root, "dist", rootfs, architecture, path));
      const sha1 = createHash("sha1").update(bytes).digest("hex");
      const isOurs = path === "/pause";
      files.push({
        SPDXID: id("File", path),
        fileName: `.${path}`, // relative to the root of what it is in (clause 8.1)
        checksums: [checksum("SHA1", sha1), checksum("SHA256", sha256(bytes))],
        licenseConcluded: isOurs
          ? kind === "hosted"
            ? `Apache-2.0 AND ${BUN_LICENSES}`
            : "Apache-2.0"
          : NONE,
        copyrightText: isOurs ? COPYRIGHT : NONE,
      });
      relate(image, "CONTAINS", id("File", path));
      if (of !== undefined) relate(id("File", path), "EXPANDED_FROM_ARCHIVE", id("Package", `-${of.name}`));
      return sha1;
    });
    const entry = index.manifests.find(({ platform }) => platform?.architecture === architecture);
    packages.push({
      SPDXID: image,
      ...ours(kind),
      filesAnalyzed: true,
      // Clause 7.9.
      packageVerificationCode: {
        packageVerificationCodeValue: createHash("sha1").update(sha1s.toSorted().join("")).digest("hex"),
      },
      licenseInfoFromFiles: [NONE],
      ...purl("oci", name, entry?.digest ?? "", { arch: architecture }),
    });
  }
  const document: Document = {
    spdxVersion: "SPDX-2.3",
    dataLicense: "CC0-1.0",
    SPDXID: "SPDXRef-DOCUMENT",
    name: reference,
    // Another one for another image, as clause 6.5 wants, and the same one for the same.
    documentNamespace: `https://spdx.org/spdxdocs/${name}-${tag}-${digest.replace("sha256:", "")}`,
    creationInfo: { created: timestamp(time), creators: [`Tool: ${name}-${version}`] },
    packages,
    files,
    relationships,
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}
