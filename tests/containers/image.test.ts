/**
 * How the images are built: the same whenever and wherever; and that their root file systems work. What is in them:
 * units/archives.test.ts.
 */
import { describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { commit } from "../../image/commit.ts";
import { glibcOf, images, type Kind } from "../../image/contents.ts";
import { KEYRING, mirrorOf } from "../../image/debian.ts";
import { indexOf } from "../../image/layout.ts";
import { ended, MESSAGE, needing } from "../helpers/expect.ts";
import { copyRepository, IMAGES } from "../helpers/images.ts";
import { Pod } from "../helpers/pod.ts";
import { childrenOf, must, output, temporary, until } from "../helpers/process.ts";
import { architecture, dist, root } from "../helpers/programs.ts";
import { sleepsInPause } from "../helpers/rest.ts";
import { STRACE, traceLines } from "../helpers/strace.ts";
import { ROOT, refusedInCI } from "../helpers/tools.ts";

needing(ROOT, STRACE, ...IMAGES).test("hosted: every file is opened at start", async () => {
  using folder = temporary();
  cpSync(join(dist, "rootfs", architecture), folder.path, { recursive: true });
  mkdirSync(join(folder.path, "proc"));
  const script = 'mount -t proc proc "$0/proc" && exec chroot "$0" /pause';
  const lines = await traceLines("execve,openat", "unshare", "--mount", "sh", "-c", script, folder.path);
  const start = lines.findIndex((line) => line.startsWith('execve("/pause"'));
  const opened = lines
    .slice(start)
    .map((line) => /(?:openat\(AT_FDCWD, |execve\()"([^"]+)".* = \d+$/.exec(line)?.[1]);
  // The kernel opens the interpreter itself.
  const [, ...libraries] = glibcOf(architecture);
  expect(["/pause", ...libraries].filter((file) => !opened.includes(file))).toEqual([]);
});

needing(
  { "qemu-aarch64-static": "qemu-user-static" },
  ...IMAGES,
).test("hosted: arm64's root file system works under qemu-user", async () => {
  const folder = join(dist, "rootfs/arm64");
  await using pod = await Pod.start(["qemu-aarch64-static", "-L", folder, join(folder, "pause")]);
  await until("pause", () => sleepsInPause(pod.pid));
  pod.exec("sh", "-c", 'for i in $(seq 20); do sh -c "sleep 0.01 &"; done');
  await until("no child", () => childrenOf(pod.pid).length === 0);
  expect(await pod.end("SIGTERM")).toMatchObject({ stderr: MESSAGE, exitCode: 0 });
});

/** A copy of the repository with nothing that was built. */
class Clone implements Disposable {
  readonly #parent = mkdtempSync(join(tmpdir(), "pause-again-"));
  readonly folder = join(this.#parent, "clone");

  constructor() {
    copyRepository(this.folder);
  }

  /** Builds an image. */
  build(kind: Kind, env?: Record<string, string>) {
    const command = ["sh", "-c", `umask 077; npm run -s image -- ${kind}`];
    return output(command, { cwd: this.folder, ...(env && { env }) });
  }

  /** The environment of a distribution without apt, dpkg and tar: npm, buildah, git and a shell, nothing else. */
  get anyDistribution(): Record<string, string> {
    const PATH = mkdtempSync(join(this.#parent, "bin-"));
    for (const tool of ["sh", "node", "npm", "buildah", "git"])
      symlinkSync(Bun.which(tool) ?? "", join(PATH, tool));
    return { PATH, HOME: PATH };
  }

  get annotations(): Record<string, string> {
    const { index } = indexOf(join(this.folder, "dist", images.freestanding.archive));
    return index.annotations ?? {};
  }

  /** That it has the same archive and bill of materials as dist/, to the byte. */
  expectSame(kind: Kind): void {
    for (const file of [images[kind].archive, images[kind].sbom])
      expect(output(["cmp", join(this.folder, "dist", file), join(dist, file)])).toEqual(ended({}));
  }

  [Symbol.dispose](): void {
    rmSync(this.#parent, { recursive: true, force: true });
  }
}

needing({ git: "git" }, ...IMAGES).describe("a build", () => {
  test("freestanding: where there is only npm and buildah, in another folder, with another umask: the same bytes", () => {
    using clone = new Clone();
    expect(clone.build("freestanding", clone.anyDistribution)).toMatchObject({ stderr: "", exitCode: 0 });
    clone.expectSame("freestanding");
  });

  test("without a repository it is of no commit and of 1970, or SOURCE_DATE_EPOCH", () => {
    using clone = new Clone();
    rmSync(join(clone.folder, ".git"), { recursive: true });
    const build = (epoch: string) =>
      clone.build("freestanding", { ...clone.anyDistribution, SOURCE_DATE_EPOCH: epoch });
    for (const [epoch, time] of [
      ["", "1970-01-01T00:00:00Z"],
      ["1000000000", "2001-09-09T01:46:40Z"],
    ] as const) {
      expect(build(epoch)).toMatchObject({ stderr: "", exitCode: 0 });
      expect(clone.annotations["org.opencontainers.image.created"]).toBe(time);
      expect(clone.annotations).not.toHaveProperty(["org.opencontainers.image.revision"]);
    }
    const stderr = 'image: SOURCE_DATE_EPOCH is "yesterday": it takes seconds since 1970\n';
    expect(build("yesterday")).toMatchObject({ stderr, exitCode: 1 });
  });

  test("a changed tree says so, and package.json's repository is where the source is", () => {
    using clone = new Clone();
    const { revision } = commit();
    const url = "https://example.org/pause";
    must("npm", "--prefix", clone.folder, "pkg", "set", `repository.url=git+${url}.git`);
    expect(clone.build("freestanding")).toMatchObject({ exitCode: 0 });
    expect(clone.annotations).toMatchObject({
      ...(revision && { "org.opencontainers.image.revision": `${revision.replace("-dirty", "")}-dirty` }),
      "org.opencontainers.image.source": url,
      "org.opencontainers.image.url": url,
      "org.opencontainers.image.documentation": `${url}#readme`,
    });
  });

  test("hosted: where there is no apt, one line says what works", () => {
    using clone = new Clone();
    const stderr =
      'image: apt-get is missing: it takes a Debian or Ubuntu; "npm run image -- freestanding" works here\n';
    expect(clone.build("hosted", clone.anyDistribution)).toMatchObject({ stderr, exitCode: 1 });
  });

  test("hosted: a second one, at another time and in another folder, is the same byte for byte", () => {
    using clone = new Clone();
    expect(clone.build("hosted")).toMatchObject({ exitCode: 0 });
    clone.expectSame("hosted");
  });
});

describe("libc6 is Debian 12's", () => {
  const debian12 = needing(ROOT, { [KEYRING]: "debian-archive-keyring", "apt-get": "apt" }, () =>
    refusedInCI(mirrorOf("bookworm") ? "" : "run the tests where apt has a source of Debian 12"),
  );
  const debian = (suite: string) => `deb [signed-by=${KEYRING}] ${mirrorOf("bookworm")} ${suite} main\n`;
  for (const [where, release, suites] of [
    ["Ubuntu with a source of Debian 12", "ID=ubuntu\nVERSION_CODENAME=noble\n", ["bookworm"]],
    ["Debian 13", "ID=debian\nVERSION_CODENAME=trixie\n", ["trixie"]],
    ["Debian 12 with packages of 13", "ID=debian\nVERSION_CODENAME=bookworm\n", ["bookworm", "trixie"]],
  ] as const)
    debian12.test(`on ${where}`, () => {
      using temporaryFolder = temporary();
      const folder = temporaryFolder.path;
      writeFileSync(join(folder, "os-release"), release);
      writeFileSync(join(folder, "test.list"), suites.map(debian).join(""));
      const [library, work] = [join(root, "image/debian.ts"), folder].map((text) => JSON.stringify(text));
      const script = `const { debianPackages } = await import(${library});
        console.log(JSON.stringify(debianPackages(${work}, ["amd64", "arm64"], ["libc6"])));`;
      const mounts = `mount --bind ${folder}/os-release /etc/os-release
        mount -t tmpfs none /etc/apt/sources.list.d
        cp ${folder}/test.list /etc/apt/sources.list.d && exec "$@"`;
      const bun = [process.execPath, "-e", script];
      const text = must("unshare", "--mount", "sh", "-ec", mounts, "sh", ...bun);
      for (const [{ version }] of Object.values<[{ version: string }]>(JSON.parse(text)))
        expect(version).toStartWith("2.36-9+deb12u");
    });
});
