/**
 * What the images have to do in every runtime, old and new. For tests only: it imports the test runner.
 */
import { expect } from "bun:test";
import { mkdtempSync } from "node:fs";
import { basename, join } from "node:path";
import { MESSAGE } from "./expect.ts";
import { application, readJson } from "./images.ts";
import { childrenOf, must, output, status, until } from "./process.ts";
import { hosted, type Program, root } from "./programs.ts";
import { untilAtRest } from "./rest.ts";
import { defaultSeccomp, type Inside, orphans, type Sandbox, specify } from "./runtimes.ts";

export const EXAMPLE = join(root, "examples/seccomp.json");
const PS = ["busybox", "ps", "-o", "pid,stat,args"];
const PAUSE = /^ *1 S +\/pause$/m;

/** It is at rest, with no heap of a runtime's. */
export async function expectAtRest(pid: number, program: Program): Promise<void> {
  await untilAtRest({ pid }, program);
  expect(Number.parseInt(status(pid, "RssAnon"), 10)).toBeLessThan(300);
}

/** Where bundles are made; in the folder, the root file system of each program has its name. */
interface Bundles {
  readonly folder: string;
  readonly inside: Inside;
}

/** Runs a container in what a sandbox of Kubernetes has at the least, with these changes, and ends it. */
async function inBundle(
  { folder, inside }: Bundles,
  runtime: string,
  program: Program,
  { noNewPrivileges = true, seccomp = defaultSeccomp(), mebibytes = 16, pids = 1 },
  look: (pid: number) => Promise<void> | void,
): Promise<void> {
  const bundle = mkdtempSync(join(folder, "bundle-"));
  const id = basename(bundle);
  specify(bundle, runtime, ({ process, root, linux }) => {
    const user = { uid: 65535, gid: 65535 };
    Object.assign(process, { user, capabilities: {}, noNewPrivileges });
    Object.assign(root, { path: join(folder, program.name), readonly: true });
    const resources = { memory: { limit: mebibytes * 2 ** 20 }, pids: { limit: pids } };
    Object.assign(linux, { resources, seccomp, cgroupsPath: `/pause-test-${id}` });
    // Its own cgroup is the root of what it sees; where cgroups are of version 2, `spec` says so.
    if (!linux.namespaces.some(({ type }: { type: string }) => type === "cgroup"))
      linux.namespaces.push({ type: "cgroup" });
  });
  const container = Bun.spawn([...inside(runtime, "run", "--bundle", bundle, id)], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  try {
    let pid = 0;
    await until("a running container", () => {
      const { stdout, exitCode } = output(inside(runtime, "state", id));
      if (exitCode === 0 && JSON.parse(stdout).status === "running") pid = JSON.parse(stdout).pid;
      return pid !== 0 || container.exitCode !== null;
    });
    if (pid === 0) throw new Error(await new Response(container.stderr).text());
    await untilAtRest({ pid, stderr: container.stderr }, program);
    await look(pid);
    must(...inside(runtime, "kill", id, "TERM"));
    expect(await container.exited).toBe(0);
    expect(await new Response(container.stderr).text()).toBe(MESSAGE);
  } finally {
    output(inside(runtime, "delete", "--force", id));
  }
}

// An OCI runtime takes the example as it is.
const profiles = { "default seccomp": defaultSeccomp, "examples/seccomp.json": () => readJson(EXAMPLE) };

/** With each runtime, profile and setting of no_new_privs: by a name, a case for a program. */
export const restrictions = Object.entries({ crun: 1, runc: 16 }).flatMap(([runtime, pids]) =>
  Object.entries(profiles).flatMap(([profile, seccomp]) =>
    [true, false].map((noNewPrivileges) => ({
      name: `${runtime}: read-only, no capabilities, ${noNewPrivileges ? "" : "not "}no new privileges, ${profile}, 16 MiB, pids.max ${pids}`,
      run: (bundles: Bundles, program: Program) =>
        // runc is in Go, which may start a thread until the execve; seldom, but without one it does not get there.
        inBundle(bundles, runtime, program, { noNewPrivileges, seccomp: seccomp(), pids }, async (pid) => {
          await expectAtRest(pid, program);
          expect(status(pid, "Uid")).toStartWith("65535\t");
          expect(status(pid, "CapEff")).toBe("0000000000000000");
          expect(status(pid, "NoNewPrivs")).toBe(noNewPrivileges ? "1" : "0");
          expect(status(pid, "Seccomp")).toBe("2");
          must("nsenter", "--target", String(pid), "--pid", "--", "sh", "-c", orphans(50));
          await until("no child", () => childrenOf(pid).length === 0, { pid });
        }),
    })),
  ),
);

/** For a program, the limits of memory that are enough, in MiB: by a name, a case each. */
export const limits = (program: Program) =>
  (program === hosted ? [64, 32, 24, 16, 8, 6] : [16, 1, 0.25]).map((mebibytes) => ({
    name: `crun: ${mebibytes} MiB of memory, which it can see, are enough`,
    run: (bundles: Bundles) =>
      inBundle(bundles, "crun", program, { mebibytes }, async (pid) => {
        const seen = "sys/fs/cgroup/memory/memory.limit_in_bytes sys/fs/cgroup/memory.max";
        const limit = output(["sh", "-c", `cd /proc/${pid}/root && cat ${seen} 2>/dev/null`]).stdout;
        expect(Number(limit)).toBe(mebibytes * 2 ** 20);
        await expectAtRest(pid, program);
      }),
  }));

/**
 * Two containers of a sandbox see PID 1, which is at rest; orphans and an exec that takes too long leave it no child.
 *
 * @returns what runs a command in the second
 */
export async function expectPair({ pid, start }: Sandbox, program: Program, count: number) {
  await expectAtRest(pid, program);
  expect(status(pid, "Uid")).toStartWith("65535\t");
  expect(status(pid, "Seccomp")).toBe("2");
  const one = await start("one");
  const two = await start("two");
  for (const exec of [one, two]) expect(await exec(10, ...PS)).toMatch(PAUSE);
  await two(90, "sh", "-c", orphans(count));
  // A probe that takes too long, with a child that outlives it. containerd answers at once that it did, but the
  // http2 of Bun does not always pass on an answer that has no body: then the call's own deadline ends it.
  const probe = "(busybox sleep 2 >/dev/null 2>&1 &); exec busybox sleep 600";
  await expect(one(1, "sh", "-c", probe)).rejects.toThrow(/timeout|exceeded/i);
  await until("no child", () => childrenOf(pid).length === 0, { pid });
  expect(await two(10, ...PS)).not.toMatch(/ Z /);
  return two;
}

/**
 * Two containers of podman's or Docker's, "one" and "two", see PID 1, which is at rest; orphans and a killed exec leave
 * it no child.
 *
 * @param runtime the command line of podman or Docker with these arguments
 */
export async function expectReaps(runtime: Inside, pid: number, program: Program, count: number) {
  await expectAtRest(pid, program);
  const run = (...args: readonly string[]) => must(...runtime(...args));
  const ps = (name: string) => run("exec", name, ...PS);
  for (const name of ["one", "two"]) expect(ps(name)).toMatch(PAUSE);
  run("exec", "two", "sh", "-c", orphans(count));
  const killed = Bun.spawn([...runtime("exec", "one", "busybox", "sleep", "600")], {
    stdio: ["ignore", "ignore", "ignore"],
  });
  await until("the exec", () => /sleep 600/.test(ps("two")));
  killed.kill("SIGKILL");
  await killed.exited;
  const left = /^ *(\d+) .*sleep 600$/m.exec(ps("two"))?.[1];
  run("exec", "two", "sh", "-c", `kill -9 ${left}`);
  await until("no zombie and no orphan", () => !/ Z |sleep 0.1|sleep 600/.test(ps("two")), { pid });
  expect(childrenOf(pid)).toEqual([]);
}

/**
 * Does that in a pod of podman's, which ends with 0.
 *
 * @param options of `podman pod create`
 */
export async function expectPodmanPair(
  podman: Inside,
  options: readonly string[],
  program: Program,
  count: number,
  look: (pid: number) => void = () => {},
): Promise<void> {
  const run = (...args: readonly string[]) => must(...podman(...args)).trim();
  run("pod", "create", "--name", "pod", ...options);
  try {
    for (const name of ["one", "two"])
      run("run", "--detach", "--pod", "pod", "--name", name, application.name, "busybox", "sleep", "10000");
    const infra = run("pod", "inspect", "--format", "{{.InfraContainerID}}", "pod");
    const inspect = (what: string) => run("inspect", "--format", `{{.State.${what}}}`, infra);
    const pid = Number(inspect("Pid"));
    await expectReaps(podman, pid, program, count);
    look(pid);
    run("pod", "stop", "--time", "60", "pod");
    expect(inspect("ExitCode")).toBe("0");
  } finally {
    output(podman("pod", "rm", "--force", "pod"));
  }
}

/** Profiles of seccomp, as options of podman and Docker: the example is this file. */
export const PROFILES: Record<string, (file: string) => string[]> = {
  "default seccomp": () => [],
  "examples/seccomp.json": (file) => [`--security-opt=seccomp=${file}`],
};
