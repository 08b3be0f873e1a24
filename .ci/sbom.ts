/**
 * The bill of materials of the image, as SPDX 2.3 JSON: npm's own of what the build uses, and Debian's glibc.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { name, version } from "../package.json" with { type: "json" };

const [glibc = ""] = Bun.argv.slice(2);
const rootfs = "dist/rootfs";
const architectures = {
  amd64: ["/pause", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu"],
  arm64: ["/pause", "/lib/ld-linux-aarch64.so.1", "/lib/aarch64-linux-gnu"],
} as const;
const libraries = ["libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2"];

interface Package {
  SPDXID: string;
  name: string;
  [field: string]: unknown;
}

const npm = Bun.spawnSync([
  "npm",
  "sbom",
  "--package-lock-only",
  "--sbom-format",
  "spdx",
  "--sbom-type",
  "application",
]);
const document = JSON.parse(npm.stdout.toString()) as {
  packages: Package[];
  relationships: object[];
  [field: string]: unknown;
};
// Of what npm installs, only Bun becomes a part of the image.
document.packages = document.packages.filter((one) => one.name === name || one.name === "bun");
const [self = "", bun = ""] = [name, "bun"].map(
  (wanted) => document.packages.find((one) => one.name === wanted)?.SPDXID,
);
document.relationships = document.relationships.filter((one) =>
  Object.values(one).includes("SPDXRef-DOCUMENT"),
);

const relate = (from: string, relationshipType: string, to: string) =>
  document.relationships.push({ spdxElementId: from, relatedSpdxElement: to, relationshipType });

const files = Object.entries(architectures).flatMap(([architecture, [pause, loader, folder]]) =>
  [pause, loader, ...libraries.map((library) => `${folder}/${library}`)].map((path) => {
    const SPDXID = `SPDXRef-File-${architecture}${path.replace(/[^A-Za-z0-9.]/g, "-")}`;
    const bytes = readFileSync(join(rootfs, architecture, path));
    const checksum = (algorithm: string) => ({
      algorithm: algorithm.toUpperCase(),
      checksumValue: createHash(algorithm).update(bytes).digest("hex"),
    });
    relate(path === pause ? self : `SPDXRef-Package-glibc-${architecture}`, "CONTAINS", SPDXID);
    if (path === pause) relate(SPDXID, "GENERATED_FROM", bun);
    return { SPDXID, fileName: `.${path}`, checksums: [checksum("sha1"), checksum("sha256")] };
  }),
);
for (const architecture of Object.keys(architectures)) {
  const SPDXID = `SPDXRef-Package-glibc-${architecture}`;
  document.packages.push({
    SPDXID,
    name: "libc6",
    versionInfo: glibc,
    supplier: "Organization: Debian",
    downloadLocation: "NOASSERTION",
    filesAnalyzed: false,
    licenseConcluded: "NOASSERTION",
    licenseDeclared: "LGPL-2.1-or-later",
    copyrightText: "NOASSERTION",
    externalRefs: [
      {
        referenceCategory: "PACKAGE-MANAGER",
        referenceType: "purl",
        referenceLocator: `pkg:deb/debian/libc6@${glibc}?arch=${architecture}`,
      },
    ],
  });
  relate(SPDXID, "RUNTIME_DEPENDENCY_OF", self);
}
relate(bun, "BUILD_TOOL_OF", self);
// The time and the random number that npm puts in would make each build another one.
const digest = createHash("sha256").update(JSON.stringify(files)).digest("hex");
Object.assign(document, {
  name: `${name}@${version}`,
  documentNamespace: `https://spdx.org/spdxdocs/${name}-${version}-${digest}`,
  creationInfo: { ...(document.creationInfo as object), created: "1970-01-01T00:00:00Z" },
  files,
});
process.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
