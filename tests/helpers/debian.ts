/**
 * Packages of later Debians than this one, from the mirror that this machine's apt uses. Debian's signatures are
 * verified. What was fetched stays in dist/debian: delete that to get newer ones.
 */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";
import { KEYRING, mirrorOf } from "../../image/debian.ts";
import { Place } from "./places.ts";
import { must, output } from "./process.ts";
import { dist } from "./programs.ts";
import { missing, type Needed, ROOT, unobtainable } from "./tools.ts";

export type Suite = "trixie" | "sid";

const folder = join(dist, "debian");

/** Where this machine's apt gets its own release of Debian, which is where it gets the others too. */
function mirror(): string | undefined {
  const release = /^VERSION_CODENAME=(\S+)$/m.exec(output(["cat", "/etc/os-release"]).stdout)?.[1];
  return release && mirrorOf(release);
}

/** Why there is nothing to be had from a later Debian: "" if there is. In CI there has to be. */
export function missingDebian(tools: Record<string, string>): string {
  const how = missing({
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    [KEYRING]: "debian-archive-keyring",
    ...tools,
  });
  if (how !== "" || (existsSync("/etc/debian_version") && mirror() !== undefined)) return how;
  if (process.env.CI) throw new Error("missing in CI: a mirror of Debian in apt's sources");
  return "run the tests on Debian";
}

const source = (suite: string) => `deb [signed-by=${KEYRING}] ${mirror()} ${suite} main`;

/** Makes dist/debian/NAME once. It is made in another folder first, so an interrupted run leaves no half of it. */
export function once(name: string, make: (path: string) => void): string {
  const path = join(folder, name);
  if (existsSync(path)) return path;
  mkdirSync(folder, { recursive: true });
  const unfinished = mkdtempSync(join(folder, "unfinished-"));
  try {
    make(unfinished);
    must("chmod", "755", unfinished);
    renameSync(unfinished, path);
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
  return path;
}

/**
 * A folder with what is in this package, and without what it depends on; any user can do this. `name` is a regular
 * expression: if several packages match, it is the one with the highest number.
 *
 * @param architecture Debian's name of it; else this machine's
 */
export const unpacked = (suite: Suite | "bookworm", name: string, architecture = ""): string =>
  once(`${name.replace(/\[.*?\]|[^\w-]/g, "")}-${suite}${architecture && `-${architecture}`}`, (path) => {
    // Lists and downloads of its own, so that the machine's stay as they are.
    const apt = mkdtempSync(join(folder, "unfinished-apt-"));
    try {
      for (const needed of ["lists/partial", "cache/archives/partial"])
        mkdirSync(join(apt, needed), { recursive: true });
      writeFileSync(join(apt, "sources.list"), `${source(suite)}\n`);
      const options = {
        "Dir::State::lists": join(apt, "lists"),
        "Dir::Cache": join(apt, "cache"),
        "Dir::Etc::sourcelist": join(apt, "sources.list"),
        "Dir::Etc::sourceparts": "-",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": userInfo().username,
        ...(architecture && { "APT::Architecture": architecture, "APT::Architectures": architecture }),
      };
      const words = ["-qq", ...Object.entries(options).flatMap(([key, value]) => ["-o", `${key}=${value}`])];
      must("apt-get", ...words, "update");
      const found = must("apt-cache", ...words, "search", "--names-only", `^${name}$`).match(/^\S+/gm) ?? [];
      const newest = found.toSorted((one, other) => one.localeCompare(other, "en", { numeric: true })).at(-1);
      const download = output(["apt-get", ...words, "download", newest ?? name], { cwd: apt });
      const deb = readdirSync(apt).find((file) => file.endsWith(".deb"));
      if (deb === undefined) throw new Error(`apt-get download ${newest ?? name}: ${download.stderr}`);
      must("dpkg-deb", "--extract", join(apt, deb), path);
      // As in a whole root file system of these.
      for (const merged of readdirSync(join(path, "usr")).filter((entry) => entry.startsWith("lib")))
        if (!existsSync(join(path, merged))) symlinkSync(`usr/${merged}`, join(path, merged));
    } finally {
      rmSync(apt, { recursive: true, force: true });
    }
  });

/**
 * A root file system with these packages and what they depend on; only root can make it.
 *
 * @param paths dpkg's options path-exclude and path-include
 * @param variant of mmdebstrap. extract: the packages are unpacked and not configured; that takes a fraction of the
 * time, and who runs a program without a service needs no more.
 */
export const rootFileSystem = (
  suite: Suite,
  packages: readonly string[],
  paths: readonly string[] = [],
  variant: "extract" | "minbase" = "extract",
): string =>
  once(`${suite}-${Bun.hash([variant, ...packages, ...paths].join()).toString(36)}`, (path) => {
    // How this machine reaches its mirror: by a proxy, or one that stands still and is past its date.
    const reach = `${path}.conf`;
    writeFileSync(
      reach,
      must("apt-config", "dump")
        .match(/^Acquire::.*$/gm)
        ?.join("\n") ?? "",
    );
    try {
      must(
        ...["mmdebstrap", "--quiet", `--variant=${variant}`, "--format=directory", `--aptopt=${reach}`],
        `--include=${["base-files", ...packages].join()}`,
        ...paths.map((option) => `--dpkgopt=${option}`),
        ...[suite, path, source(suite)],
      );
    } finally {
      rmSync(reach);
    }
  });

/** A command that finds the programs of a root file system, and else the files of this machine; only root can run it. */
export const withProgramsOf = (root: string, ...command: readonly string[]): readonly string[] => [
  ...["unshare", "--mount", "sh", "-c", 'mount --bind "$0/usr" /usr && exec "$@"', root],
  ...command,
];
/**
 * runc refuses a plain chroot, so the root file system becomes the root of a mount namespace. It stays as it is:
 * everything is written to /mnt, and to file systems that end with the namespace. An empty cgroup2 is not to hide the
 * version that the runtimes can use.
 */
const ENTER = `set -e
root=$2
mkdir -p "$root/mnt" "$root/srv" "$root/media"
: >>"$root/etc/hosts"
: >>"$root/etc/resolv.conf"
mount --bind "$root" "$root"
for folder in proc sys dev; do mount --rbind /$folder "$root/$folder"; done
umount "$root/sys/fs/cgroup/unified" 2>/dev/null || true
for folder in run var/run tmp var/tmp; do mount -t tmpfs tmpfs "$root/$folder"; done
mount --bind "$0" "$root/mnt"
mount --bind "$1" "$root/srv"
mount -o remount,bind,ro "$root"
cd "$root"
pivot_root . media
busybox umount -l /media
echo ready
exec busybox sleep infinity`;

/** One root file system of each suite for all tests: most of the time goes into apt. */
const PACKAGES = {
  trixie: [
    ...["containerd", "podman", "crun", "runc", "golang-github-containers-common"],
    ...["docker.io", "docker-cli", "skopeo", "cosign"],
  ],
  sid: ["criu", "python3-spdx-tools"],
} as const;

/** The root file system of a DebianMachine. */
export const machineOf = (suite: Suite): string =>
  rootFileSystem(suite, ["busybox-static", ...PACKAGES[suite]]);

/** What a DebianMachine takes. */
export const machineNeeds = (suite: Suite): readonly Needed[] => [
  ROOT,
  { mmdebstrap: "mmdebstrap", "/bin/busybox": "busybox-static" },
  () => missingDebian({}) || unobtainable(() => machineOf(suite)),
];

/** A machine with this Debian as its root file system; its folder is /mnt there, dist/ is /srv. */
export class DebianMachine extends Place {
  protected override readonly tools = ["/bin/busybox"];

  private constructor(readonly root: string) {
    super(ENTER, root);
  }

  static start(suite: Suite): Promise<DebianMachine> {
    return new DebianMachine(machineOf(suite)).ready();
  }

  override path(file: string): string {
    return file.replace(this.folder, "/mnt").replace(dist, "/srv");
  }
}
