/**
 * A node as users have it: a whole Debian with systemd, cgroup v2 and AppArmor, on user-mode-linux. It is a process, and
 * needs no KVM. What it printed stays in dist/node/SUITE/console.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { once, rootFileSystem, type Suite } from "../helpers/debian.ts";
import { must } from "../helpers/process.ts";
import { dist, root } from "../helpers/programs.ts";

const PACKAGES = [
  ...["systemd-sysv", "dbus", "udev", "kmod", "apparmor", "procps", "user-mode-linux", "busybox-static"],
  ...["containerd", "runc", "crun", "containernetworking-plugins", "docker.io", "docker-cli", "iptables"],
  ...["podman", "netavark", "uidmap", "golang-github-containers-common"],
];
const PATHS = ["path-exclude=/usr/share/{doc,man,locale,info}/*"];

/** The root file system, as a folder. */
const rootOf = (suite: Suite) =>
  rootFileSystem(suite, [...PACKAGES, ...(suite === "sid" ? ["criu"] : [])], PATHS, "minbase");

/** The same as a disk. */
const diskOf = (suite: Suite) => {
  const from = rootOf(suite);
  return join(
    once(`${suite}-node-${Bun.hash(from).toString(36)}`, (path) => {
      // Where modprobe looks.
      if (!existsSync(join(from, "usr/lib/modules")))
        symlinkSync("uml/modules", join(from, "usr/lib/modules"));
      must("mke2fs", "-q", "-t", "ext4", "-d", from, join(path, "disk"), "4G");
    }),
    "disk",
  );
};

/** Whether this is the node: the file to which `report` writes. */
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

/** By the name of a test, what its error is: "" if there is none. */
export type Results = ReadonlyMap<string, string>;

/**
 * Boots it, and runs this file there as a test.
 *
 * @returns what the file wrote to PAUSE_NODE, and where all that was printed is
 */
export async function boot(suite: Suite, file: string): Promise<{ results: Results; console: string }> {
  const name = join("dist/node", suite);
  const folder = join(root, name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const disk = diskOf(suite);
  const command = [
    ...["/usr/bin/env", "--chdir=/mnt/project", `PAUSE_NODE=${name}/results`, "HOME=/root"],
    ...["node_modules/.bin/bun", "test", "--timeout", "120000", `./${file}`],
  ];
  const machine = Bun.spawn(
    [
      ...["unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"],
      ...["sh", "-c", BOOT, rootOf(suite), disk, `systemd.run="${command.join(" ")}"`],
    ],
    {
      cwd: root,
      stdio: ["ignore", Bun.file(join(folder, "console")), Bun.file(join(folder, "stderr"))],
      timeout: LIMIT_SECONDS * 1000,
      killSignal: "SIGKILL",
    },
  );
  await machine.exited;
  const results = join(folder, "results");
  const lines = existsSync(results) ? readFileSync(results, "utf8").trimEnd().split("\n") : [];
  return {
    results: new Map(lines.map((line) => JSON.parse(line) as [string, string])),
    console: join(dist, "node", suite, "console"),
  };
}
