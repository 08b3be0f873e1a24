/**
 * Publishes the images of a tagged commit, which `npm run image` has made, and lays out in dist/release what a page of
 * the release has.
 *
 *     npm run release -- REPOSITORY [--key FILE and other options of cosign]
 *
 * Both images are pushed by digest, signed and attested first, and named last: what fails on the way has published
 * nothing that anybody finds, and can be run again. Without --key cosign signs by OpenID Connect ("keyless").
 */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { version } from "../package.json" with { type: "json" };
import { commit, git } from "./commit.ts";
import { images, type Kind, kinds, NOTICES, root, repository as source } from "./contents.ts";
import { indexOf, sha256 } from "./layout.ts";
import type { Document } from "./sbom.ts";
import { fail, need, say } from "./tools.ts";

const dist = join(root, "dist");
const TAG = `v${version}`;

/** Runs a command and keeps what it writes. */
function attempt(...command: readonly string[]): { stdout: string; why: string } {
  const { exitCode, stdout, stderr } = Bun.spawnSync([...command], { stdin: "ignore" });
  const text = stderr.toString().trim();
  // Of what skopeo and cosign write the one line that says why.
  const why = /^Error: (.*)$/m.exec(text)?.[1] ?? /msg="(.*)"$/m.exec(text)?.[1] ?? text.split("\n").at(-1);
  return { stdout: stdout.toString(), why: exitCode === 0 ? "" : (why ?? "") || `exit code ${exitCode}` };
}

/** The same for one that has to succeed. */
function must(...command: readonly string[]): string {
  const { stdout, why } = attempt(...command);
  if (why !== "") fail(`${command.slice(0, 2).join(" ")}: ${why}`);
  return stdout;
}

/** What the registry has under a name, if anything. */
function published(name: string): string | undefined {
  const { stdout, why } = attempt("skopeo", "inspect", "--raw", `docker://${name}`);
  if (why === "") return `sha256:${sha256(stdout)}`;
  return /manifest unknown|name unknown|not found/i.test(why) ? undefined : fail(`${name}: ${why}`);
}

/** The hash of the commit, which has to be what is here, and to have the version's tag. */
function tagged(): string {
  const { revision } = commit();
  if (revision === undefined) return fail("this is no git repository");
  if (revision.endsWith("-dirty")) fail("the tree differs from its commit: see git status");
  const tags = git("tag", "--points-at", "HEAD").split("\n").filter(Boolean);
  if (!tags.includes(TAG))
    fail(
      `package.json has version ${version}, but the commit has ${tags.length > 0 ? `the tag ${tags.join(", ")}` : "no tag"}: git tag ${TAG}`,
    );
  return revision;
}

/** The version's section of the changelog. */
function changes(): string {
  const sections = readFileSync(join(root, "CHANGELOG.md"), "utf8").split(/^(?=## )/m);
  const section = sections.find((text) => text.startsWith(`## ${version}\n`));
  return section ?? fail(`CHANGELOG.md has no section "## ${version}"`);
}

/** An image that was made of this commit: its files, and what the registry will know it by. */
function made(kind: Kind, revision: string) {
  const { archive, sbom, tag } = images[kind];
  for (const file of [archive, sbom])
    if (!existsSync(join(dist, file))) fail(`dist/${file} is missing: npm run image`);
  const { digest, index } = indexOf(join(dist, archive));
  const of = index.annotations?.["org.opencontainers.image.revision"];
  if (of !== revision) fail(`dist/${archive} is of ${of ?? "no commit"}, not of ${revision}: npm run image`);
  return { kind, archive: join(dist, archive), sbom: join(dist, sbom), digest, tag };
}

/** The listings of the freestanding image's executables, by architecture: of those that this bill of materials names. */
function listings(sbom: string): Map<string, string> {
  const shipped = readFileSync(sbom, "utf8");
  const found = images.freestanding.architectures.map((architecture): [string, string] => {
    const folder = join(dist, "freestanding", architecture);
    const [executable, listing] = [join(folder, "pause"), join(folder, "pause.lst")];
    if (!existsSync(listing) || !shipped.includes(sha256(readFileSync(executable))))
      fail(`dist/freestanding/${architecture} is not what the image has: npm run image`);
    return [architecture, listing];
  });
  return new Map(found);
}

/** How the image came to be: the predicate of SLSA's build provenance (slsa.dev/spec/v1.0/provenance). */
function provenance(sbom: string, revision: string): object {
  const { packages } = JSON.parse(readFileSync(sbom, "utf8")) as Document;
  const dependencies = packages
    .filter(({ SPDXID }) => SPDXID !== "SPDXRef-Package-index")
    .flatMap(({ externalRefs, checksums }) =>
      (checksums ?? []).map(({ algorithm, checksumValue }) => ({
        uri: externalRefs?.[0]?.referenceLocator,
        digest: { [algorithm.toLowerCase()]: checksumValue },
      })),
    );
  const {
    GITHUB_SERVER_URL: server,
    GITHUB_WORKFLOW_REF: workflow,
    GITHUB_REPOSITORY: repository,
  } = process.env;
  const { GITHUB_RUN_ID: id, GITHUB_RUN_ATTEMPT: attempt } = process.env;
  return {
    buildDefinition: {
      buildType: "urn:pause:image:v1", // image/README.md says what that is
      externalParameters: { revision, commands: ["npm ci", "npm run image"] },
      resolvedDependencies: [
        { ...(source && { uri: `git+${source}` }), digest: { gitCommit: revision } },
        ...dependencies,
      ],
    },
    runDetails: workflow
      ? {
          builder: { id: `${server}/${workflow}` },
          metadata: { invocationId: `${server}/${repository}/actions/runs/${id}/attempts/${attempt}` },
        }
      : { builder: { id: "urn:pause:by-hand" } },
  };
}

/** Lays out what a page of the release has. */
function page(all: readonly ReturnType<typeof made>[], options: readonly string[], notes: string): void {
  const folder = join(dist, "release");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  const files = new Map<string, string>();
  for (const { archive, sbom, kind } of all) {
    files.set(images[kind].archive, archive);
    files.set(images[kind].sbom, sbom);
  }
  for (const [architecture, listing] of listed) files.set(`pause-${architecture}.lst`, listing);
  for (const name of NOTICES) files.set(name, join(root, name));
  for (const [name, from] of files) copyFileSync(from, join(folder, name));
  const sums = [...files.keys()]
    .toSorted()
    .map((name) => `${sha256(readFileSync(join(folder, name)))}  ${name}\n`);
  const file = join(folder, "SHA256SUMS");
  writeFileSync(file, sums.join(""));
  must("cosign", "sign-blob", "--yes", ...options, "--bundle", `${file}.bundle`, file);
  // No file of the release itself: its text.
  writeFileSync(join(dist, "NOTES.md"), notes);
}

const [repository = "", ...options] = Bun.argv.slice(2);
if (!/^[a-z0-9.-]+(:\d+)?(\/[a-z0-9._-]+)+$/.test(repository))
  fail(`"${repository}" is no repository: npm run release -- HOST/PATH, in lower case, and cosign's options`);
need(["skopeo"], "apt-get install skopeo, dnf install skopeo …");
need(["cosign"], "apt-get install cosign (Debian 13), dnf install cosign …");
const revision = tagged();
const section = changes();
const all = kinds.map((kind) => made(kind, revision));
const listed = listings(join(dist, images.freestanding.sbom));
for (const { tag, digest } of all) {
  const there = published(`${repository}:${tag}`);
  if (there !== undefined && there !== digest)
    fail(
      `${repository}:${tag} is there already, and is ${there}, not ${digest}: a version is published once`,
    );
}

const work = mkdtempSync(join(tmpdir(), "pause-release-"));
process.on("exit", () => rmSync(work, { recursive: true, force: true }));
const push = ["skopeo", "copy", "--quiet", "--all", "--preserve-digests"];
for (const { archive, digest, tag } of all) {
  say(`push ${repository}@${digest}, which will be ${tag}`);
  must(...push, `oci-archive:${archive}`, `docker://${repository}@${digest}`);
}
for (const { sbom, digest } of all) {
  say(`sign and attest ${repository}@${digest}`);
  const image = `${repository}@${digest}`;
  // Each platform's image too: podman and CRI-O verify the one that they run.
  must("cosign", "sign", "--yes", "--recursive", ...options, image);
  const predicate = join(work, "provenance.json");
  writeFileSync(predicate, JSON.stringify(provenance(sbom, revision)));
  for (const [type, file] of [
    ["spdxjson", sbom],
    ["slsaprovenance1", predicate],
  ] as const)
    must("cosign", "attest", "--yes", "--replace", ...options, "--type", type, "--predicate", file, image);
}
const digests = all.map(({ tag, digest }) => `    ${tag.padEnd(20)} ${digest}\n`).join("");
page(all, options, `${section.trimEnd()}\n\n### Digests\n\n${digests}`);
for (const { digest, tag } of all) {
  must(...push, `docker://${repository}@${digest}`, `docker://${repository}:${tag}`);
  if (published(`${repository}:${tag}`) !== digest) fail(`${repository}:${tag} is not ${digest}`);
  say(`${repository}:${tag} is ${digest}`);
}
say(`dist/release: ${readdirSync(join(dist, "release")).length} files; its text is dist/NOTES.md`);
