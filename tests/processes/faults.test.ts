/**
 * What the kernel refuses, on the real executable: strace makes one system call fail.
 */
import { expect } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { describeEach, MESSAGE, needing } from "../helpers/expect.ts";
import { childrenOf, must, output, until } from "../helpers/process.ts";
import { dist, freestanding, hosted, type Program, root } from "../helpers/programs.ts";
import { isAtRest, PAUSE, runtimeIsGone } from "../helpers/rest.ts";

const strace = needing({ strace: "strace" });

/** The calls of one system call, or of a class of them, that a program makes until it pauses, in their order. */
async function calls(program: Program, name: string): Promise<string[]> {
  const file = join(dist, `${program.name}-${name}.strace`);
  await rm(file, { force: true });
  const tracer = Bun.spawn(["strace", "-o", file, "-e", `trace=${name},${PAUSE}`, program.executable], {
    stderr: "ignore",
  });
  const lines = () => (existsSync(file) ? readFileSync(file, "utf8").split("\n") : []);
  await until("pause", () => lines().some((line) => line.startsWith(`${PAUSE}(`)), tracer);
  for (const pid of childrenOf(tracer.pid)) process.kill(pid, "SIGTERM");
  await tracer.exited;
  return lines().filter((line) => !line.startsWith(`${PAUSE}(`));
}

/** How a program ends when the `when`th call of a system call fails. */
const injected = ({ executable }: Program, name: string, when: number) =>
  output([
    "strace",
    "-o",
    "/dev/null",
    "-e",
    `trace=${name}`,
    "-e",
    `inject=${name}:error=EINVAL:when=${when}`,
    executable,
  ]);

const handlers = { SIGINT: 1, SIGTERM: 2, SIGCHLD: 3 };

describeEach((program) => {
  for (const [signal, exitCode] of Object.entries(handlers))
    strace.test(`sigaction(${signal}) fails: exit code ${exitCode}`, async () => {
      const trace = await calls(program, "rt_sigaction");
      const when = 1 + trace.findIndex((line) => line.startsWith(`rt_sigaction(${signal}, {sa_handler=0x`));
      expect(when).toBeGreaterThan(0);
      expect(injected(program, "rt_sigaction", when)).toEqual({
        stdout: "",
        stderr: "Warning: pause should be the first process\n",
        exitCode,
        signalCode: null,
      });
    });

  strace.test("no call that gives memory back, or protects it, fails", async () => {
    const trace = await calls(program, "munmap,madvise,mprotect");
    expect(trace.filter((line) => line.includes("= -1 "))).toEqual([]);
    if (program === hosted) expect(trace.length).toBeGreaterThan(0);
  });
});

/** How pages of ours become executable. */
const SEALS = `${Math.max(1 << 14, Number(must("getconf", "PAGESIZE")))}, PROT_READ|PROT_EXEC`;

strace.test("memory that cannot be made executable is one line and exit code 1", async () => {
  const trace = await calls(hosted, "mprotect");
  const when = 1 + trace.findIndex((line) => line.includes(SEALS));
  expect(when).toBeGreaterThan(0);
  expect(injected(hosted, "mprotect", when)).toMatchObject({
    stdout: "",
    stderr:
      "Warning: pause should be the first process\nError: no executable memory for the signal handlers\n",
    exitCode: 1,
  });
});

strace.test("where the runtime cannot be given back it stays, and all else is as ever", async () => {
  const trace = await calls(hosted, "mprotect");
  // The second that is sealed are the pages that unmap all else.
  const when = 1 + trace.findLastIndex((line) => line.includes(SEALS));
  expect(when).toBeGreaterThan(0);
  const inject = ["-e", "trace=mprotect", "-e", `inject=mprotect:error=EINVAL:when=${when}`];
  await using tracer = Bun.spawn(["strace", "-qq", "-o", "/dev/null", ...inject, hosted.executable], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const pid = () => childrenOf(tracer.pid)[0] ?? 0;
  await until("rest", () => isAtRest(pid(), hosted, { runtime: "may stay" }), tracer);
  expect(runtimeIsGone(pid(), hosted)).toBe(false);
  process.kill(pid(), "SIGTERM");
  expect(await tracer.exited).toBe(0);
  expect(await new Response(tracer.stderr).text()).toEndWith(MESSAGE);
});

strace.test("no page is writable and executable at once, but for Bun's JIT", async () => {
  const trace = await calls(hosted, "mmap,mprotect");
  const both = trace.filter((line) => /PROT_WRITE\|PROT_EXEC/.test(line));
  expect(both.length).toBeLessThanOrEqual(1);
});

strace.test("no file of the working directory is read", async () => {
  const trace = (await calls(hosted, "file")).filter((line) => /"/.test(line));
  const paths = trace.flatMap(
    (line) => /^(?:open|openat|access|stat|newfstatat|readlink|statx)\(.*?"([^"]*)"/.exec(line)?.[1] ?? [],
  );
  expect(paths.length).toBeGreaterThan(0);
  expect(
    paths.filter(
      (path) => !/^\/(etc|lib|usr|proc|sys|dev)\//.test(path) && path !== "" && path !== hosted.executable,
    ),
  ).toEqual([]);
});

/** Where a handler is installed that cannot be run yet, and where it becomes executable. */
const early = {
  rt_sigaction: /^rt_sigaction\(SIG(TERM|CHLD), \{sa_handler=0x/,
  mprotect: /PROT_READ\|PROT_EXEC/,
};

for (const [name, pattern] of Object.entries(early))
  strace.test(`a SIGTERM that comes in ${name} finds a handler that can be run`, async () => {
    const trace = await calls(hosted, name);
    // Those of the routines are the last but one that seals: the last are the pages that unmap all else.
    const found = trace.flatMap((line, index) => (pattern.test(line) ? [index + 1] : [])).slice(-2);
    expect(found).toHaveLength(2);
    for (const when of found) {
      const inject = ["-e", `trace=${name}`, "-e", `inject=${name}:signal=SIGTERM:when=${when}`];
      const { stderr, exitCode, signalCode } = output([
        ...["strace", "-qq", "-o", "/dev/null", ...inject, hosted.executable],
      ]);
      expect({ when, stderr, exitCode, signalCode }).toEqual({
        ...{ when, stderr: `Warning: pause should be the first process\n${MESSAGE}`, exitCode: 0 },
        signalCode: null,
      });
    }
  });

strace.test("SIGPWR finds its default, not Bun's handler, from the moment on when Bun goes", async () => {
  const trace = await calls(hosted, "munmap");
  // The executable's first address: Bun's code goes with it.
  const first = 1 + trace.findIndex((line) => line.startsWith("munmap(0x200000,"));
  expect(first).toBeGreaterThan(0);
  const file = join(dist, "munmap.strace");
  // How many calls there are is chance: ranges that happen to lie side by side go by one.
  for (let when = first; ; when++) {
    const inject = ["-e", "trace=munmap", "-e", `inject=munmap:signal=SIGPWR:when=${when}`];
    await using tracer = Bun.spawn(["strace", "-qq", "-o", file, ...inject, hosted.executable], {
      stdio: ["ignore", "ignore", "ignore"],
    });
    const pid = () => childrenOf(tracer.pid)[0] ?? 0;
    const hasEnded = () => tracer.exitCode !== null || tracer.signalCode !== null;
    await until("an end or rest", () => hasEnded() || isAtRest(pid(), hosted), tracer);
    if (!hasEnded()) {
      process.kill(pid(), "SIGTERM");
      await tracer.exited;
      expect(readFileSync(file, "utf8").split("munmap(").length - 1).toBeLessThan(when);
      expect(when).toBeGreaterThan(first);
      break;
    }
    expect({ when, signalCode: tracer.signalCode }).toEqual({ when, signalCode: "SIGPWR" });
  }
});

/** The system calls of a start, a SIGCHLD and a SIGTERM; `loop` is the one in which it rests. */
async function callsOfALife({ name, executable }: Program): Promise<{ all: string[]; loop: number }> {
  const file = join(dist, `${name}-life.strace`);
  await rm(file, { force: true });
  const tracer = Bun.spawn(["strace", "-f", "-qq", "-o", file, executable], {
    stdio: ["ignore", "ignore", "ignore"],
  });
  const all = () =>
    existsSync(file)
      ? [...readFileSync(file, "utf8").matchAll(/^\d+ +(\w+)\(/gm)].map(([, name]) => name ?? "")
      : [];
  const loop = () => all().indexOf(PAUSE);
  await until("pause", () => loop() > 0, tracer);
  const [pid] = childrenOf(tracer.pid);
  if (pid === undefined) throw new Error("nothing is traced");
  process.kill(pid, "SIGCHLD");
  await until("the handler's end", () => all().lastIndexOf("rt_sigreturn") > loop(), { pid });
  process.kill(pid, "SIGTERM");
  await tracer.exited;
  return { all: all(), loop: loop() };
}

describeEach(
  (program) => {
    strace.test("at rest no system calls are left but those of its signals", async () => {
      const { all, loop } = await callsOfALife(program);
      const left = ["exit_group", PAUSE, "rt_sigreturn", "wait4", "write"];
      expect([...new Set(all.slice(loop))].toSorted()).toEqual(left);
    });
  },
  [hosted, freestanding],
);

strace.test("examples/seccomp.json allows what a start and a rest call, and little else", async () => {
  const { syscalls } = await Bun.file(join(root, "examples/seccomp.json")).json();
  const groups = new Map<string, string[]>();
  const conditional: string[] = [];
  for (const { comment, names, args } of syscalls) {
    if (args) conditional.push(...names);
    else groups.set(comment, names);
  }
  const own = process.arch === "x64" ? "On x86-64" : "On arm64";
  const allowed = [...(groups.get("On both architectures") ?? []), ...(groups.get(own) ?? [])];
  const { all } = await callsOfALife(hosted);
  expect(all.filter((name) => ![...groups.values()].flat().includes(name))).toEqual([]);
  // Another glibc than the image's loads the executable with other calls.
  if (output(["ldd", "--version"]).stdout.includes("2.36"))
    expect(allowed.filter((name) => !all.includes(name))).toEqual([]);

  // A new process, another program's memory, a connection, a mount, more of the kernel.
  const harmful =
    /^(clone|fork|vfork|socket|connect|bind|ptrace|process_vm|pidfd|mount|umount|pivot|chroot|setns|unshare|bpf|\w*module|kexec|keyctl|perf|userfaultfd|io_uring|open_by|name_to|swap|reboot|mknod|\w*unlink|\w*rename|\w*chmod)/;
  expect([...groups.values()].flat().filter((name) => harmful.test(name))).toEqual([]);
  expect(conditional).toEqual(["clone"]);
});
