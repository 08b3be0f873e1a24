/**
 * The bill of materials of an image, as SPDX 2.3 JSON: npm's own of what the build uses, and Debian's libc6 where it
 * is in the image.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { name, version } from "../package.json" with { type: "json" };
import { images, type Kind, root } from "./contents.ts";
import { run } from "./tools.ts";

/** What is in the image for an architecture: /pause, and these files of this version of libc6. */
export interface RootFilesystem {
  architecture: string;
  libraries: readonly string[];
  libc6?: string;
}

interface Package {
  SPDXID: string;
  name: string;
  [field: string]: unknown;
}

interface Document {
  packages: Package[];
  relationships: object[];
  [field: string]: unknown;
}

const NPM = "npm sbom --package-lock-only --sbom-format spdx --sbom-type application";

/** Debian's libc6 as a package of the document. */
const debian = (SPDXID: string, architecture: string, versionInfo: string): Package => ({
  SPDXID,
  name: "libc6",
  versionInfo,
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
      referenceLocator: `pkg:deb/debian/libc6@${versionInfo}?arch=${architecture}`,
    },
  ],
});

/** The text of the bill of materials. */
export function sbom(kind: Kind, contents: readonly RootFilesystem[]): string {
  const document = JSON.parse(run(NPM.split(" "))) as Document;
  const [self = "", bun = ""] = [name, "bun"].map(
    (wanted) => document.packages.find((one) => one.name === wanted)?.SPDXID,
  );
  // Of what npm installs, only Bun makes what is in the image.
  const packages = document.packages.filter(({ SPDXID }) => SPDXID === self || SPDXID === bun);
  const relationships = document.relationships.filter((one) =>
    Object.values(one).includes("SPDXRef-DOCUMENT"),
  );
  const files: object[] = [];
  const relate = (spdxElementId: string, relationshipType: string, relatedSpdxElement: string) =>
    relationships.push({ spdxElementId, relatedSpdxElement, relationshipType });

  relate(bun, "BUILD_TOOL_OF", self);
  for (const { architecture, libraries, libc6 } of contents) {
    const addFile = (path: string, owner: string) => {
      const SPDXID = `SPDXRef-File-${architecture}${path.replace(/[^A-Za-z0-9.]/g, "-")}`;
      const bytes = readFileSync(join(root, "dist", images[kind].rootfs, architecture, path));
      const checksums = ["sha1", "sha256"].map((algorithm) => ({
        algorithm: algorithm.toUpperCase(),
        checksumValue: createHash(algorithm).update(bytes).digest("hex"),
      }));
      files.push({ SPDXID, fileName: `./${architecture}${path}`, checksums });
      relate(owner, "CONTAINS", SPDXID);
      return SPDXID;
    };
    const pause = addFile("/pause", self);
    // The hosted executable is Bun with our script in it; in the freestanding one nothing is Bun's.
    if (kind === "hosted") relate(pause, "CONTAINS", bun);
    if (libc6 !== undefined) {
      const SPDXID = `SPDXRef-Package-libc6-${architecture}`;
      packages.push(debian(SPDXID, architecture, libc6));
      relate(SPDXID, "RUNTIME_DEPENDENCY_OF", self);
      for (const path of libraries) addFile(path, SPDXID);
    }
  }
  // The time, the random number and the version that npm puts in would make each build another one.
  const digest = createHash("sha256").update(JSON.stringify(files)).digest("hex");
  const reproducible: Document = {
    ...document,
    name: images[kind].reference,
    documentNamespace: `https://spdx.org/spdxdocs/${name}-${kind}-${version}-${digest}`,
    creationInfo: { created: "1970-01-01T00:00:00Z", creators: ["Tool: npm"] },
    packages,
    files,
    relationships,
  };
  return `${JSON.stringify(reproducible, null, 2)}\n`;
}
