/**
 * README's two commands on machines that are not like ours: what is missing is said in one line.
 */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { KEYRING } from "../../image/debian.ts";
import { needing } from "../helpers/expect.ts";
import { NAMESPACES } from "../helpers/pod.ts";
import { must, output } from "../helpers/process.ts";
import { dist, root } from "../helpers/programs.ts";
import { ROOT } from "../helpers/tools.ts";

/** Root sees the clone at /mnt: users may not enter every folder that it can lie in, such as root's own. */
const asRoot = needing(ROOT);
const [prefix, clone] = asRoot.skip
  ? [[], root]
  : [["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /mnt && exec "$@"', root], "/mnt"];
const bun = process.execPath.replace(root, clone);
const TITLE = "sleep as PID 1 of a new PID namespace, as in a pod without a pause container:\n";

const user = "exec setpriv --reuid 65534 --regid 65534 --clear-groups";
// Whoever is not root and has not the whole of /proc gets no new one, as in a container.
const HIDDEN = `mount -t tmpfs none /proc/sys; ${user}`;

/** What a shell does first, and the line that follows. */
const reasons: Record<string, readonly [setup: string, line: RegExp, by?: typeof asRoot]> = {
  "no tools": ["unset CI; PATH=; exec", /^This needs tools that are not here: apt-get install util-linux$/],
  "root without its rights": [
    "exec setpriv --bounding-set=-sys_admin",
    /^PID namespaces cannot be made here \(unshare: unshare failed: Operation not permitted\): run this outside/,
    asRoot,
  ],
  "a /proc with hidden parts": [
    HIDDEN,
    /^PID namespaces cannot be made here \(unshare: mount \/proc failed: Operation not permitted\): run this outside/,
    asRoot,
  ],
  // The kernel gives no user namespace to whoever is in a chroot (user_namespaces(7)).
  "no user namespaces": [
    `mount --rbind / /media; exec chroot /media ${user.replace("exec ", "")}`,
    /^PID namespaces are for root only here \(unshare: unshare failed: Operation not permitted\): run this as root/,
    asRoot,
  ],
};

const inSetup = (setup: string, ...command: readonly string[]) =>
  output([...prefix, "sh", "-c", `${setup} "$@"`, "sh", ...command]);

const namespaces = needing({ unshare: "util-linux", nsenter: "util-linux" }, NAMESPACES);
namespaces.test("npm start shows both builds reaping, and what it proved", () => {
  const stdout = must("npm", "--prefix", root, "start");
  for (const words of ["300 zombies", "freestanding pause", "hosted pause", "both builds reap all 300"])
    expect(stdout).toContain(words);
});

for (const [name, [setup, line, by = needing()]] of Object.entries(reasons))
  by.test(`npm start, ${name}: one line, and 1`, () => {
    const { stdout, stderr, exitCode } = inSetup(setup, bun, join(clone, "examples/orphans.ts"));
    expect(stderr.trimEnd()).toMatch(line);
    expect({ lines: stderr.split("\n").length, exitCode }).toEqual({ lines: 2, exitCode: 1 });
    expect(["", TITLE]).toContain(stdout);
  });

asRoot.test("where unshare fails after its fork there is no pod", () => {
  const script = `const { Pod } = await import("${clone}/tests/helpers/pod.ts");
    const starts = Array.from({ length: 50 }, () => Pod.start(["sleep", "infinity"]));
    for (const { status, reason } of await Promise.allSettled(starts)) console.log(status, reason?.message.trim());`;
  const line = "rejected unshare: mount /proc failed: Operation not permitted\n";
  expect(inSetup(HIDDEN, bun, "-e", script).stdout).toBe(line.repeat(50));
});

for (const [name, [setup]] of Object.entries(reasons).filter(([, [, , by]]) => by === asRoot))
  asRoot.test(`npm cit, ${name}: what needs namespaces is skipped, and in CI it fails`, () => {
    const test = `cd ${clone} && CI=$0 exec ${bun} test signals.test.ts`;
    const inTests = (CI: string) => inSetup(setup, "sh", "-c", test, CI);
    const { stderr, exitCode } = inTests("");
    expect([exitCode, stderr]).toEqual([0, expect.stringContaining("(skipped: run the tests as root, and")]);
    expect(stderr).toContain("\n 0 fail\n");
    expect(inTests("true").exitCode).toBe(1);
  });

/** A machine whose apt reaches nothing. */
const offline = join(dist, "offline.conf");
writeFileSync(offline, 'Acquire::http::Proxy "http://127.0.0.1:9"; Acquire::Retries "0";');

/** What happens to a test that takes a package of another Debian there, with CI set to this. */
function withoutNetwork(CI: string) {
  const [debian, tools] = ["debian", "tools"].map((name) =>
    JSON.stringify(join(root, `tests/helpers/${name}.ts`)),
  );
  const script = `const { unpacked } = await import(${debian});
    const { unobtainable } = await import(${tools});
    console.log(unobtainable(() => unpacked("sid", "hello")));`;
  return output([process.execPath, "-e", script], { env: { ...process.env, APT_CONFIG: offline, CI } });
}

const apt = needing({ "apt-get": "apt", [KEYRING]: "debian-archive-keyring" });
apt.test(
  "npm cit without a network: a test that takes one is skipped with the reason, but in CI it fails",
  () => {
    expect(withoutNetwork("")).toMatchObject({
      stdout: expect.stringMatching(/^not to be had now: .+\n$/),
      exitCode: 0,
    });
    expect(withoutNetwork("true")).toMatchObject({ stdout: "", exitCode: 1 });
  },
);

asRoot.test("npm cit in a folder that only root may enter", () => {
  const hide = `mount -t tmpfs -o mode=700 none /media && mkdir /media/clone && mount --bind "$0" /media/clone && cd /media/clone && exec "$@"`;
  const command = ["test", "tests/processes/hostile.test.ts", "-t", "65535|one process"];
  const bun = process.execPath.replace(root, "/media/clone");
  const { stderr, exitCode } = output(["unshare", "--mount", "sh", "-c", hide, root, bun, ...command]);
  expect(stderr).toContain("one process at most");
  expect(exitCode, stderr).toBe(0);
});

test("bun test FILE...: a test may take longer than Bun's 5 seconds, and one line says which packages are missing", () => {
  const folder = mkdtempSync(join(dist, "two-"));
  const tools = JSON.stringify(join(root, "tests/helpers/expect.ts"));
  const write = (name: string, needed: string, body: string) =>
    writeFileSync(
      join(folder, name),
      `import { test } from "bun:test";
      import { needing } from ${tools};
      needing({ "/not/there": "${needed}", sh: "dash" });
      test("${name}", async () => { ${body} });`,
    );
  try {
    write("first.test.ts", "one three", "");
    write("second.test.ts", "two one", "await Bun.sleep(5100);");
    const paths = ["first", "second"].map((name) => join(folder, `${name}.test.ts`));
    const run = (...options: readonly string[]) =>
      output([process.execPath, "test", ...options, ...paths], {
        cwd: root,
        env: { PATH: process.env.PATH ?? "" },
      });
    const { stderr, exitCode } = run();
    expect(exitCode, stderr).toBe(0);
    expect(stderr.match(/apt-get install .*/g)).toEqual(["apt-get install one three two"]);
    // Whoever asks for another time gets it.
    expect(run("--timeout", "50").stderr).toContain("timed out after 50ms");
  } finally {
    rmSync(folder, { recursive: true });
  }
});
