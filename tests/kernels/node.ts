/**
 * A node as users have it: a whole Debian with systemd, cgroup v2 and AppArmor, on user-mode-linux. It is a process, and
 * needs no KVM. What it printed stays in dist/node.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { basename, join, relative } from "node:path";
import { once, rootFileSystem } from "../helpers/debian.ts";
import { must } from "../helpers/process.ts";
import { dist, root } from "../helpers/programs.ts";

const folder = join(dist, "node");

const PACKAGES = [
  ...["systemd-sysv", "dbus", "udev", "kmod", "apparmor", "procps", "user-mode-linux", "busybox-static"],
  ...["containerd", "runc", "crun", "containernetworking-plugins", "docker.io", "docker-cli", "iptables"],
  ...["podman", "netavark", "uidmap", "golang-github-containers-common"],
];
const PATHS = ["doc", "locale", "man"].map((folder) => `path-exclude=/usr/share/${folder}/*`);

/** Its root file system, as a folder. */
export const fetchNode = () => rootFileSystem("sid", PACKAGES, PATHS, "minbase");

/** The same as a disk, which is made once. */
const diskOf = (from: string) =>
  join(
    once(`${basename(from)}-disk`, (path) => {
      // Where modprobe looks.
      if (!existsSync(join(from, "usr/lib/modules")))
        symlinkSync("uml/modules", join(from, "usr/lib/modules"));
      must("mke2fs", "-q", "-t", "ext4", "-d", from, join(path, "disk"), "4G");
    }),
    "disk",
  );

/** On the node, the file to which the tests write what they came to. */
export const inside = process.env.PAUSE_NODE;

/** Longer than everything on it takes. */
const LIMIT_SECONDS = 900;

/**
 * In a mount namespace with sid's programs: $0 is the root file system, $1 the disk, which is not written to. /mnt is in
 * memory, with this project at /mnt/project, there and in the node.
 */
const BOOT = `set -e
mount --bind "$0/usr" /usr
mount -t tmpfs tmpfs /mnt
mkdir /mnt/project
mount --no-canonicalize --bind . /mnt/project
export TMPDIR=/mnt
disk=$1
shift
exec linux.uml uml_dir=/mnt mem=4G "ubd0=/mnt/changes,$disk" root=/dev/ubda rw seccomp=on security=apparmor \\
  con=null con0=null,fd:1 systemd.mount-extra=none:/mnt/project:hostfs:hostfs=/mnt/project \\
  systemd.show_status=error "$@"`;

/** What the tests came to on the node. */
export interface Report {
  /** By the name of a test, its error: "" if there is none. */
  readonly errors: ReadonlyMap<string, string>;
  /** How the node ended: the last that was printed, and where the rest is. */
  readonly end: string;
}

/** Boots the node, and runs a file of tests there. It is killed when it takes too long. */
export async function boot(file: string): Promise<Report> {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const console = join(folder, "console");
  const stderr = join(folder, "stderr");
  const results = join(folder, "results");
  const from = fetchNode();
  const tests = [
    ...["/usr/bin/env", "--chdir=/mnt/project", `PAUSE_NODE=${relative(root, results)}`, "HOME=/root"],
    ...["node_modules/.bin/bun", "test", "--timeout", "120000", `./${relative(root, file)}`],
  ];
  const machine = Bun.spawn(
    [
      ...["setpriv", "--pdeathsig", "KILL"],
      ...["unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"],
      ...["sh", "-c", BOOT, from, diskOf(from), `systemd.run="${tests.join(" ")}"`],
    ],
    {
      cwd: root,
      stdio: ["ignore", Bun.file(console), Bun.file(stderr)],
      timeout: LIMIT_SECONDS * 1000,
      killSignal: "SIGKILL",
    },
  );
  await machine.exited;
  const lines = existsSync(results) ? readFileSync(results, "utf8").trimEnd().split("\n") : [];
  const printed = Bun.stripANSI(readFileSync(stderr, "utf8") + readFileSync(console, "utf8"));
  const ended = machine.signalCode === null ? "It ended" : `It was killed after ${LIMIT_SECONDS} s`;
  return {
    errors: new Map(lines.map((line) => JSON.parse(line) as [string, string])),
    end: `${ended}. ${relative(root, console)} ends with:\n${printed.trimEnd().split("\n").slice(-20).join("\n")}`,
  };
}
