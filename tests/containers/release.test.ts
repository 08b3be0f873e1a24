/**
 * A release: image/README.md's and SECURITY.md's commands, as they stand there, on a registry, and what keeps it from
 * being published by halves. Each test takes what the ones before it have done.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { images, type Kind, kinds } from "../../image/contents.ts";
import { indexOf } from "../../image/layout.ts";
import { version } from "../../package.json" with { type: "json" };
import { allowInsecure, type Registry, startRegistry } from "../helpers/daemons.ts";
import { DebianMachine, machineNeeds } from "../helpers/debian.ts";
import { needing } from "../helpers/expect.ts";
import { commands, copyRepository, IMAGES } from "../helpers/images.ts";
import { type Place, ThisMachine } from "../helpers/places.ts";
import { must, output } from "../helpers/process.ts";
import { dist, root } from "../helpers/programs.ts";
import { type Inside, podmanOf } from "../helpers/runtimes.ts";

const TOOLS = {
  ...{ git: "git", skopeo: "skopeo", "docker-registry": "docker-registry" },
  "/etc/containers/registries.conf.d": "golang-github-containers-common",
};

needing(...machineNeeds("trixie"), TOOLS, ...IMAGES).describe("release", () => {
  const stack = new AsyncDisposableStack();
  let workshop: Place;
  let trixie: DebianMachine;
  let registry: Registry;
  let readOnly: Registry;
  /** A clone of what is here, committed and tagged. */
  let clone: string;
  /** Where cosign is. */
  let bin: string;

  const git = (...args: readonly string[]) =>
    must("git", "-C", clone, "-c", "user.name=test", "-c", "user.email=test@localhost", ...args);
  const tag = () => git("tag", "--force", `v${version}`);
  /** The command line of a script in the clone, where cosign is, with its key's password. */
  const script = (text: string, path = `${bin}:${process.env.PATH}`) => {
    const npm = { HOME: workshop.folder, npm_config_update_notifier: "false" };
    const variables = { PATH: path, REGISTRY: registry.name, COSIGN_PASSWORD: "secret", ...npm };
    return workshop.script(text, variables, clone);
  };
  const run = (text: string, path?: string) => output(script(text, path));
  const sh = (text: string) => must(...script(text));
  const digestOf = (kind: Kind) => indexOf(join(clone, "dist", images[kind].archive)).digest;
  const isNamed = (name: string) => run(`skopeo inspect --raw docker://${name}`).exitCode === 0;

  beforeAll(async () => {
    workshop = stack.use(await new ThisMachine().ready());
    const { folder } = workshop;
    [clone, bin] = [join(folder, "clone"), join(folder, "bin")];
    must("git", "clone", "--quiet", "--shared", "--no-checkout", root, clone);
    copyRepository(clone, ".git");
    git("add", "--all");
    if (git("status", "--porcelain") === "") {
      // The images are of this commit already.
      mkdirSync(join(clone, "dist"));
      const made = kinds.flatMap((kind) => [images[kind].archive, images[kind].sbom]);
      for (const file of [...made, "freestanding"])
        cpSync(join(dist, file), join(clone, "dist", file), { recursive: true });
    } else {
      git("commit", "--quiet", "--message", "what is not committed yet");
      must("npm", "--prefix", clone, "run", "-s", "image");
    }
    tag();

    trixie = stack.use(await DebianMachine.start("trixie"));
    mkdirSync(bin);
    symlinkSync(join(trixie.root, "usr/bin/cosign"), join(bin, "cosign"));
    registry = stack.use(await startRegistry(folder));
    readOnly = stack.use(await startRegistry(join(folder, "read-only"), true));
    for (const place of [workshop, trixie]) allowInsecure(place, registry, readOnly);
    sh("cosign generate-key-pair; mkdir other; cd other; cosign generate-key-pair");
    writeFileSync(join(clone, ".git/info/exclude"), "cosign.*\nother\n");
  });
  afterAll(() => stack.disposeAsync());

  const release = (to = "$REGISTRY/pause", options = "--key cosign.key --tlog-upload=false", path?: string) =>
    run(`npm run -s release -- ${to} ${options}`, path);

  describe("is refused, in one line and with nothing named", () => {
    const refuses = (line: RegExp, ...args: Parameters<typeof release>) => {
      const { stderr, exitCode } = release(...args);
      expect([exitCode, stderr]).toEqual([1, expect.stringMatching(/^release: [^\n]+\n$/)]);
      expect(stderr).toMatch(line);
      for (const kind of kinds) expect(isNamed(`${registry.name}/pause:${images[kind].tag}`)).toBe(false);
    };
    /** The same with another commit, which has the tag. */
    const refusesCommit = (line: RegExp, ...options: readonly string[]) => {
      git("commit", "--quiet", "--message", "another", ...options);
      tag();
      refuses(line);
      git("reset", "--quiet", "--hard", "HEAD^");
      tag();
    };

    test("without the version's tag", () => {
      git("tag", "--delete", `v${version}`);
      refuses(/version \S+, but the commit has no tag: git tag v/);
      git("tag", "v0.9.0");
      refuses(/but the commit has the tag v0.9.0: git tag v/);
      tag();
    });

    test("a dirty tree", () => {
      appendFileSync(join(clone, "LICENSE"), "\n");
      refuses(/the tree differs from its commit: see git status/);
      git("checkout", "--quiet", "LICENSE");
    });

    test("a version without its section of the changelog", () => {
      const changelog = join(clone, "CHANGELOG.md");
      const text = readFileSync(changelog, "utf8");
      writeFileSync(changelog, text.replace(`## ${version}`, "## 0.9.0"));
      refusesCommit(/CHANGELOG.md has no section "## /, "--all");
    });

    test("images of another commit, or none", () => {
      refusesCommit(/dist\/pause\S*\.oci\.tar is of \w+, not of \w+: npm run image/, "--allow-empty");
      const executable = join(clone, "dist/freestanding/arm64/pause");
      const bytes = readFileSync(executable);
      appendFileSync(executable, "\n");
      refuses(/dist\/freestanding\/arm64 is not what the image has: npm run image/);
      writeFileSync(executable, bytes);
      must("mv", join(clone, "dist"), join(clone, "other/dist"));
      refuses(/dist\/pause\S*\.oci\.tar is missing: npm run image/);
      must("mv", join(clone, "other/dist"), join(clone, "dist"));
    });

    test("no repository, no registry, one that takes nothing", () => {
      refuses(/"--key" is no repository: npm run release -- HOST\/PATH/, "");
      refuses(/is no repository/, "$REGISTRY/pause:latest");
      refuses(/127\.0\.0\.1:1\/pause\S+: .*connection refused/, "127.0.0.1:1/pause");
      refuses(/skopeo copy: .*(unsupported|denied|405)/, `${readOnly.name}/pause`);
    });

    test("no cosign, no key", () => {
      const tools = join(workshop.folder, "tools");
      mkdirSync(tools);
      for (const tool of ["node", "npm", "git", "skopeo", "sh"])
        symlinkSync(Bun.which(tool) ?? "", join(tools, tool));
      refuses(/cosign is missing: apt-get install cosign/, undefined, undefined, tools);
      refuses(/cosign sign: .*nowhere.key/, undefined, "--key nowhere.key");
    });
  });

  test("is published: signed, attested, named, and can be run again", () => {
    const text = commands("Release", "freestanding").replace(/^.*generate-key-pair.*\n/m, "");
    git("tag", "--delete", `v${version}`);
    const again = text.split("\n").at(-1);
    const { stdout, stderr } = run(`${text}\n${again}`);
    expect(stderr).toBe("");
    for (const kind of kinds) {
      const name = `${registry.name}/pause:${images[kind].tag}`;
      expect(stdout).toContain(`${name} is ${digestOf(kind)}\n`);
      expect(sh(`skopeo inspect --format '{{.Digest}}' docker://${name}`)).toBe(`${digestOf(kind)}\n`);
    }
    const files = readdirSync(join(clone, "dist/release"));
    expect(files.toSorted()).toEqual(
      [
        ...kinds.flatMap((kind) => [images[kind].archive, images[kind].sbom]),
        ...images.freestanding.architectures.map((architecture) => `pause-${architecture}.lst`),
        ...["LICENSE", "NOTICE", "SHA256SUMS", "SHA256SUMS.bundle"],
      ].toSorted(),
    );
    const notes = readFileSync(join(clone, "dist/NOTES.md"), "utf8");
    for (const text of [`## ${version}\n`, "pause.c", ...kinds.map(digestOf)]) expect(notes).toContain(text);
  }, 300_000);

  const VERIFIED = "The signatures were verified against the specified public key";
  for (const kind of kinds)
    test(`${kind}: SECURITY.md's commands verify it`, () => {
      const { stdout, stderr, exitCode } = run(commands("Verifying a release", kind, "SECURITY.md"));
      expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
      expect(stderr.split(VERIFIED)).toHaveLength(4);
      const [sbom, provenance] = stdout
        .split("\n")
        .filter((line) => line.startsWith("{"))
        .map((line) => JSON.parse(Buffer.from(JSON.parse(line).payload, "base64").toString()));
      const sha256 = digestOf(kind).replace("sha256:", "");
      for (const statement of [sbom, provenance]) expect(statement.subject[0].digest).toEqual({ sha256 });
      expect(sbom.predicate).toEqual(
        JSON.parse(readFileSync(join(clone, "dist", images[kind].sbom), "utf8")),
      );
      const revision = git("rev-parse", "HEAD").trim();
      expect(provenance.predicateType).toBe("https://slsa.dev/provenance/v1");
      expect(provenance.predicate.buildDefinition.resolvedDependencies).toContainEqual({
        digest: { gitCommit: revision },
      });
    });

  test("SECURITY.md's commands verify the files of the release's page", () => {
    const text = commands("The files of its page", "freestanding", "SECURITY.md");
    const verify = () => run(`cp cosign.pub dist/release\ncd dist/release\n${text}`);
    const { stdout, ...rest } = verify();
    expect(rest).toMatchObject({ exitCode: 0, stderr: expect.stringContaining("Verified OK") });
    expect(stdout).toContain("pause-freestanding.oci.tar: OK");
    appendFileSync(join(clone, "dist/release/SHA256SUMS"), "\n");
    expect(verify().exitCode).not.toBe(0);
  });

  const verify = (image: string, key = "cosign.pub") =>
    run(`cosign verify --key ${key} --insecure-ignore-tlog ${image}`);
  const verifyAttestation = (image: string, key = "cosign.pub") =>
    run(`cosign verify-attestation --key ${key} --insecure-ignore-tlog --type spdxjson ${image}`);

  test("a wrong key is refused", () => {
    const image = `${registry.name}/pause@${digestOf("freestanding")}`;
    expect(verify(image)).toMatchObject({ exitCode: 0 });
    const { stderr, exitCode } = verify(image, "other/cosign.pub");
    expect(exitCode).not.toBe(0);
    expect(stderr).toMatch(/no matching signatures: invalid signature/);
    expect(verifyAttestation(image, "other/cosign.pub").exitCode).not.toBe(0);
  });

  test("another image with its signature is refused", () => {
    const signature = (kind: Kind) => `docker://$REGISTRY/pause:${digestOf(kind).replace(":", "-")}.sig`;
    // The other image is pushed where nothing is signed, and gets the signature of this one.
    const moved = "docker://$REGISTRY/moved/pause";
    const index = digestOf("hosted");
    sh(`skopeo copy --quiet --all --preserve-digests docker://$REGISTRY/pause@${index} ${moved}:x`);
    expect(verify(`${registry.name}/moved/pause@${index}`).stderr).toContain("no signatures found");
    sh(`skopeo copy --quiet ${signature("freestanding")} ${moved}:${index.replace(":", "-")}.sig`);
    const { stderr, exitCode } = verify(`${registry.name}/moved/pause@${index}`);
    expect(exitCode).not.toBe(0);
    expect(stderr).toContain("no matching signatures");
  });

  test("a mirror has all of it", () => {
    sh(commands("Mirror a release", "freestanding"));
    const mirror = `${registry.name}/mirror/pause@${digestOf("freestanding")}`;
    expect(verify(mirror)).toMatchObject({ exitCode: 0 });
    expect(verifyAttestation(mirror)).toMatchObject({ exitCode: 0 });
  });

  describe("SECURITY.md's policy, with podman", () => {
    const security = readFileSync(join(root, "SECURITY.md"), "utf8");
    const quoted = (language: string) =>
      (new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "ms").exec(security)?.[1] ?? "").replaceAll(
        "registry.example",
        registry.name,
      );
    const folder = () => join(trixie.folder, "containers");
    const key = (from: string) => cpSync(join(clone, from), join(folder(), "pause.pub"));
    let podman: Inside;
    const pull = (image: string) => output(podman("pull", "--quiet", image));

    beforeAll(() => {
      podman = podmanOf(trixie, "podman");
      mkdirSync(join(folder(), "registries.d"), { recursive: true });
      writeFileSync(join(folder(), "policy.json"), quoted("json"));
      writeFileSync(join(folder(), "registries.d/pause.yaml"), quoted("yaml"));
      const conf = "registries.conf.d";
      cpSync(join(trixie.folder, conf), join(folder(), conf), { recursive: true });
      trixie.bind(folder(), "/etc/containers");
    });

    for (const kind of kinds)
      test(`${kind}: what is signed is pulled, with a wrong key it is not`, () => {
        const image = `${registry.name}/pause@${digestOf(kind)}`;
        key("other/cosign.pub");
        expect(pull(image)).toMatchObject({
          exitCode: 125,
          stderr: expect.stringMatching(/cryptographic signature verification failed/),
        });
        key("cosign.pub");
        expect(pull(image)).toMatchObject({ exitCode: 0 });
      });

    test("what is not signed is refused", () => {
      // Another manifest, although of the same layers.
      const archive = "oci-archive:dist/pause-freestanding.oci.tar";
      sh(`skopeo copy --quiet --format v2s2 ${archive} docker://$REGISTRY/pause:other`);
      expect(pull(`${registry.name}/pause:other`)).toMatchObject({
        exitCode: 125,
        stderr: expect.stringContaining("A signature was required, but no signature exists"),
      });
    });
  });

  test("a changed layer is refused, whoever signed the index", () => {
    const { index } = indexOf(join(clone, "dist", images.freestanding.archive));
    const raw = (digest: string) => JSON.parse(sh(`skopeo inspect --raw docker://$REGISTRY/pause@${digest}`));
    const [{ digest }] = raw(index.manifests[0]?.digest ?? "").layers;
    const hex = digest.replace("sha256:", "");
    const blob = join(
      workshop.folder,
      "registry/docker/registry/v2/blobs/sha256",
      hex.slice(0, 2),
      hex,
      "data",
    );
    const bytes = readFileSync(blob);
    bytes[100] = (bytes[100] ?? 0) ^ 1;
    writeFileSync(blob, bytes);
    const image = `docker://$REGISTRY/pause@${digestOf("freestanding")}`;
    const { stderr, exitCode } = run(`skopeo copy --quiet --all ${image} dir:other/changed`);
    expect(exitCode).not.toBe(0);
    expect(stderr).toMatch(/[Dd]igest did not match|does not match|mismatch/);
  });

  test("a version that is there with another digest stays", () => {
    const name = `$REGISTRY/pause:${images.hosted.tag}`;
    sh(`skopeo copy --quiet docker://$REGISTRY/pause:other docker://${name}`);
    expect(release()).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(
        /^release: \S+ is there already, and is sha256:\w+, not sha256:\w+: [^\n]+\n$/,
      ),
    });
  });
});
