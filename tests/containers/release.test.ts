/**
 * A release: image/README.md's and SECURITY.md's commands, as they stand there, on a registry, and what keeps it from
 * being published by halves.
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
import { Machine, machineOf, missingDebian } from "../helpers/debian.ts";
import { buildImages, commands } from "../helpers/images.ts";
import { must, output } from "../helpers/process.ts";
import { dist, root } from "../helpers/programs.ts";
import { type Registry, startRegistry } from "../helpers/registry.ts";
import { unobtainable } from "../helpers/tools.ts";
import { Workshop } from "../helpers/workshop.ts";

const how =
  process.getuid?.() === 0
    ? missingDebian({
        buildah: "buildah",
        git: "git",
        skopeo: "skopeo",
        "docker-registry": "docker-registry",
        mmdebstrap: "mmdebstrap",
        "/bin/busybox": "busybox-static",
        "/etc/containers/registries.conf.d": "golang-github-containers-common",
      }) ||
      unobtainable(buildImages) ||
      unobtainable(() => machineOf("trixie"))
    : "run the tests as root";

describe.skipIf(how !== "")(`release${how && ` (skipped: ${how})`}`, () => {
  const workshop = new Workshop();
  const { folder } = workshop;
  /** A clone of what is here, committed and tagged. */
  const clone = join(folder, "clone");
  const bin = join(folder, "bin");
  let machine: Machine;
  let registry: Registry;
  let readOnly: Registry;

  const git = (...args: readonly string[]) =>
    must("git", "-C", clone, "-c", "user.name=test", "-c", "user.email=test@localhost", ...args);
  /** The command line of a script in the clone, where cosign is, with its key's password. */
  const script = (text: string, path = `${bin}:${process.env.PATH}`) =>
    workshop.inside(
      ...[
        "env",
        `PATH=${path}`,
        `REGISTRY=${registry.name}`,
        "COSIGN_PASSWORD=secret",
        `HOME=${folder}`,
        "npm_config_update_notifier=false",
      ],
      ...["/bin/sh", "-euc", `cd ${clone}\n${text}`],
    );
  const sh = (text: string) => must(...script(text));
  const digestOf = (kind: Kind) => indexOf(join(clone, "dist", images[kind].archive)).digest;
  const isNamed = (name: string) => output(script(`skopeo inspect --raw docker://${name}`)).exitCode === 0;

  beforeAll(async () => {
    await workshop.ready();
    must("git", "clone", "--quiet", "--shared", root, clone);
    for (const entry of readdirSync(clone)) if (entry !== ".git") must("rm", "-r", join(clone, entry));
    for (const entry of readdirSync(root))
      if (![".git", "node_modules", "dist"].includes(entry))
        cpSync(join(root, entry), join(clone, entry), { recursive: true });
    symlinkSync(join(root, "node_modules"), join(clone, "node_modules"));
    git("add", "--all");
    if (git("status", "--porcelain") === "") {
      // The images are of this commit already.
      mkdirSync(join(clone, "dist"));
      for (const kind of kinds)
        for (const file of [images[kind].archive, images[kind].sbom])
          cpSync(join(dist, file), join(clone, "dist", file));
      cpSync(join(dist, "freestanding"), join(clone, "dist/freestanding"), { recursive: true });
    } else {
      git("commit", "--quiet", "--message", "what is not committed yet");
      must("npm", "--prefix", clone, "run", "-s", "image");
    }

    git("tag", `v${version}`);

    registry = await startRegistry(folder);
    mkdirSync(join(folder, "read-only"));
    readOnly = await startRegistry(join(folder, "read-only"), true);
    machine = await Machine.start("trixie");
    mkdirSync(bin);
    symlinkSync(join(machine.root, "usr/bin/cosign"), join(bin, "cosign"));
    // The registries have no TLS, which skopeo and podman have to be told.
    const insecure = [registry, readOnly]
      .map(({ name }) => `[[registry]]\nlocation = "${name}"\ninsecure = true\n`)
      .join("");
    for (const there of [folder, machine.folder]) {
      mkdirSync(join(there, "registries.conf.d"));
      writeFileSync(join(there, "registries.conf.d/test.conf"), insecure);
    }
    const conf = "/etc/containers/registries.conf.d";
    workshop.must("mount", "--bind", join(folder, "registries.conf.d"), conf);
    machine.must("/bin/busybox", "mount", "--bind", "/mnt/registries.conf.d", conf);
    sh("cosign generate-key-pair; mkdir other; cd other; cosign generate-key-pair");
    writeFileSync(join(clone, ".git/info/exclude"), "cosign.*\nother\n");
  }, 900_000);

  afterAll(async () => {
    await registry[Symbol.asyncDispose]();
    await readOnly[Symbol.asyncDispose]();
    await machine[Symbol.asyncDispose]();
    workshop[Symbol.dispose]();
  });

  describe("is refused, in one line and with nothing named", () => {
    const release = (to: string, options = "--key cosign.key --tlog-upload=false") =>
      `npm run -s release -- ${to} ${options}`;
    const refuses = (text: string, line: RegExp, path?: string) => {
      const { stderr, exitCode } = output(script(text, path));
      expect([exitCode, stderr]).toEqual([1, expect.stringMatching(/^release: [^\n]+\n$/)]);
      expect(stderr).toMatch(line);
      for (const kind of kinds) expect(isNamed(`${registry.name}/pause:${images[kind].tag}`)).toBe(false);
    };
    const HERE = "$REGISTRY/pause";

    test("without the version's tag", () => {
      git("tag", "--delete", `v${version}`);
      refuses(release(HERE), /version \S+, but the commit has no tag: git tag v/);
      git("tag", "v0.9.0");
      refuses(release(HERE), /but the commit has the tag v0.9.0: git tag v/);
      git("tag", `v${version}`);
    });

    test("a dirty tree", () => {
      appendFileSync(join(clone, "LICENSE"), "\n");
      refuses(release(HERE), /the tree differs from its commit: see git status/);
      git("checkout", "--quiet", "LICENSE");
    });

    test("a version without its section of the changelog", () => {
      const text = readFileSync(join(clone, "CHANGELOG.md"), "utf8");
      writeFileSync(join(clone, "CHANGELOG.md"), text.replace(`## ${version}`, "## 0.9.0"));
      git("commit", "--quiet", "--all", "--message", "no section");
      git("tag", "--force", `v${version}`);
      refuses(release(HERE), /CHANGELOG.md has no section "## /);
      git("reset", "--quiet", "--hard", "HEAD^");
      git("tag", "--force", `v${version}`);
    });

    test("images of another commit, or none", () => {
      git("commit", "--quiet", "--allow-empty", "--message", "another");
      git("tag", "--force", `v${version}`);
      refuses(release(HERE), /dist\/pause\S*\.oci\.tar is of \w+, not of \w+: npm run image/);
      git("reset", "--quiet", "--hard", "HEAD^");
      git("tag", "--force", `v${version}`);
      const executable = join(clone, "dist/freestanding/arm64/pause");
      const bytes = readFileSync(executable);
      appendFileSync(executable, "\n");
      refuses(release(HERE), /dist\/freestanding\/arm64 is not what the image has: npm run image/);
      writeFileSync(executable, bytes);
      must("mv", join(clone, "dist"), join(clone, "other/dist"));
      refuses(release(HERE), /dist\/pause\S*\.oci\.tar is missing: npm run image/);
      must("mv", join(clone, "other/dist"), join(clone, "dist"));
    });

    test("no repository, no registry, one that takes nothing", () => {
      refuses(release(""), /"--key" is no repository: npm run release -- HOST\/PATH/);
      refuses(release(`${HERE}:latest`), /is no repository/);
      refuses(release("127.0.0.1:1/pause"), /127\.0\.0\.1:1\/pause\S+: .*connection refused/);
      refuses(release(`${readOnly.name}/pause`), /skopeo copy: .*(unsupported|denied|405)/);
    });

    test("no cosign, no key", () => {
      const tools = join(folder, "tools");
      mkdirSync(tools);
      for (const tool of ["node", "npm", "git", "skopeo", "sh"])
        symlinkSync(Bun.which(tool) ?? "", join(tools, tool));
      refuses(release(HERE), /cosign is missing: apt-get install cosign/, tools);
      refuses(release(HERE, "--key nowhere.key"), /cosign sign: .*nowhere.key/);
    });
  });

  test("is published: signed, attested, named, and can be run again", () => {
    const text = commands("Release", "freestanding").replace(/^.*generate-key-pair.*\n/m, "");
    git("tag", "--delete", `v${version}`);
    const again = text.split("\n").at(-1);
    const { stdout, stderr } = output(script(`${text}\n${again}`));
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
      const { stdout, stderr, exitCode } = output(
        script(commands("Verifying a release", kind, "SECURITY.md")),
      );
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
    const { stdout, stderr, exitCode } = output(
      script(`cp cosign.pub dist/release\ncd dist/release\n${text}`),
    );
    expect({ exitCode, stderr }).toMatchObject({
      exitCode: 0,
      stderr: expect.stringContaining("Verified OK"),
    });
    expect(stdout).toContain("pause-freestanding.oci.tar: OK");
    appendFileSync(join(clone, "dist/release/SHA256SUMS"), "\n");
    expect(output(script(`cp cosign.pub dist/release\ncd dist/release\n${text}`)).exitCode).not.toBe(0);
  });

  const verify = (image: string, key = "cosign.pub") =>
    output(script(`cosign verify --key ${key} --insecure-ignore-tlog ${image}`));

  test("a wrong key is refused", () => {
    const image = `${registry.name}/pause@${digestOf("freestanding")}`;
    expect(verify(image)).toMatchObject({ exitCode: 0 });
    const { stderr, exitCode } = verify(image, "other/cosign.pub");
    expect(exitCode).not.toBe(0);
    expect(stderr).toMatch(/no matching signatures: invalid signature/);
    const options = "--key other/cosign.pub --insecure-ignore-tlog --type spdxjson";
    expect(output(script(`cosign verify-attestation ${options} ${image}`)).exitCode).not.toBe(0);
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
    const options = "--key cosign.pub --insecure-ignore-tlog --type spdxjson";
    expect(output(script(`cosign verify-attestation ${options} ${mirror}`)).exitCode).toBe(0);
  });

  describe("SECURITY.md's policy, with podman", () => {
    const security = readFileSync(join(root, "SECURITY.md"), "utf8");
    const quoted = (language: string) =>
      (new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "ms").exec(security)?.[1] ?? "").replaceAll(
        "registry.example",
        registry.name,
      );
    const pull = (image: string) =>
      output(
        machine.inside(
          ...["/usr/bin/podman", "--root", "/mnt/store", "--runroot", "/mnt/run", "--storage-driver", "vfs"],
          ...["pull", "--quiet", image],
        ),
      );

    beforeAll(() => {
      mkdirSync(join(machine.folder, "containers/registries.d"), { recursive: true });
      writeFileSync(join(machine.folder, "containers/policy.json"), quoted("json"));
      writeFileSync(join(machine.folder, "containers/registries.d/pause.yaml"), quoted("yaml"));
      cpSync(join(folder, "registries.conf.d"), join(machine.folder, "containers/registries.conf.d"), {
        recursive: true,
      });
      machine.must("/bin/busybox", "mount", "--bind", "/mnt/containers", "/etc/containers");
    });
    const key = (from: string) => cpSync(join(clone, from), join(machine.folder, "containers/pause.pub"));

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
    const blob = join(folder, "registry/docker/registry/v2/blobs/sha256", hex.slice(0, 2), hex, "data");
    const bytes = readFileSync(blob);
    bytes[100] = (bytes[100] ?? 0) ^ 1;
    writeFileSync(blob, bytes);
    const image = `docker://$REGISTRY/pause@${digestOf("freestanding")}`;
    const { stderr, exitCode } = output(script(`skopeo copy --quiet --all ${image} dir:other/changed`));
    expect(exitCode).not.toBe(0);
    expect(stderr).toMatch(/[Dd]igest did not match|does not match|mismatch/);
  });

  test("a version that is there with another digest stays", () => {
    const name = `$REGISTRY/pause:${images.hosted.tag}`;
    sh(`skopeo copy --quiet docker://$REGISTRY/pause:other docker://${name}`);
    const again = output(
      script("npm run -s release -- $REGISTRY/pause --key cosign.key --tlog-upload=false"),
    );
    expect(again).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(
        /^release: \S+ is there already, and is sha256:\w+, not sha256:\w+: [^\n]+\n$/,
      ),
    });
  });
});
