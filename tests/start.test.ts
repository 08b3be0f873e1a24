/**
 * npm start where it cannot show anything: each reason is one line of its own, and nothing is shown that is not so.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { output } from "./helpers/process.ts";
import { root } from "./helpers/programs.ts";

const orphans = [process.execPath, join(root, "examples/orphans.ts")];
const pod = JSON.stringify(join(root, "tests/helpers/pod.ts"));
const TITLE = "sleep as PID 1 of a new PID namespace, as in a pod without a pause container:\n";

/** What a shell does first, and the line that follows. */
const reasons: Record<string, readonly [setup: string, line: RegExp]> = {
  "no tools": ["PATH=; exec", /^This needs tools that are not here: apt-get install util-linux$/],
};
if (process.getuid?.() === 0) {
  // Whoever is not root and has not the whole of /proc gets no new one, as in a container.
  const user = "exec setpriv --reuid 65534 --regid 65534 --clear-groups";
  reasons["root without its rights"] = [
    "exec setpriv --bounding-set=-sys_admin",
    /^PID namespaces cannot be made here \(unshare: unshare failed: Operation not permitted\): run this outside/,
  ];
  reasons["a /proc with hidden parts"] = [
    `mount -t tmpfs none /proc/sys; ${user}`,
    /^PID namespaces cannot be made here \(unshare: mount \/proc failed: Operation not permitted\): run this outside/,
  ];
  // The kernel gives no user namespace to whoever is in a chroot (user_namespaces(7)).
  reasons["no user namespaces"] = [
    `mount --rbind / /mnt; exec chroot /mnt ${user.replace("exec ", "")}`,
    /^PID namespaces are for root only here \(unshare: unshare failed: Operation not permitted\): run this as root/,
  ];
}

const mounts = process.getuid?.() === 0 ? ["unshare", "--mount"] : [];
const inSetup = (setup: string, ...command: readonly string[]) =>
  output([...mounts, "sh", "-c", `${setup} "$@"`, "sh", ...command]);

describe("npm start", () => {
  for (const [name, [setup, line]] of Object.entries(reasons))
    test(`${name}: one line, and 1`, () => {
      const { stdout, stderr, exitCode } = inSetup(setup, ...orphans);
      expect(stderr.trimEnd()).toMatch(line);
      expect({ lines: stderr.split("\n").length, exitCode }).toEqual({ lines: 2, exitCode: 1 });
      expect(["", TITLE]).toContain(stdout);
    });
});

const [setup = ""] = reasons["a /proc with hidden parts"] ?? [];
test.skipIf(setup === "")(
  `where unshare fails after its fork there is no pod${setup === "" ? " (skipped: run the tests as root)" : ""}`,
  () => {
    const script = `const { Pod } = await import(${pod});
      const starts = Array.from({ length: 50 }, () => Pod.start(["sleep", "infinity"]));
      for (const { status, reason } of await Promise.allSettled(starts)) console.log(status, reason?.message.trim());`;
    const { stdout } = inSetup(setup, process.execPath, "-e", script);
    const line = "rejected unshare: mount /proc failed: Operation not permitted\n";
    expect(stdout).toBe(line.repeat(50));
  },
);
