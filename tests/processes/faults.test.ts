/**
 * What the kernel refuses, and signals that come at a bad moment, on the real executable: by strace.
 */
import { expect } from "bun:test";
import { join } from "node:path";
import { describeEach, ended, HANDLED, MESSAGE, needing, testRefusals, WARNING } from "../helpers/expect.ts";
import { NAMESPACES, outside } from "../helpers/pod.ts";
import { must, output } from "../helpers/process.ts";
import { freestanding, hosted, root } from "../helpers/programs.ts";
import { PAUSE, restsOrEnds, runtimeIsGone, untilAtRest } from "../helpers/rest.ts";
import {
  callsOfALife,
  handlerOf,
  injectCommand,
  numbersOf,
  runInjected,
  STRACE,
  startTraced,
  traceLines,
} from "../helpers/strace.ts";

const strace = needing(NAMESPACES, STRACE);

describeEach((program) => {
  testRefusals(() => [program.executable]);

  // A signal that strace sends in a call arrives when that has been made: between each two handlers.
  for (const signal of Object.keys(HANDLED)) {
    // The hosted one blocks all signals until its handlers are there.
    const dies = signal === "SIGINT" && program !== hosted;
    strace.test(`a SIGTERM in sigaction(${signal}) ends it with ${dies ? "SIGTERM" : 0}`, async () => {
      const when = await handlerOf(signal, program.executable);
      expect(await runInjected("rt_sigaction", `signal=SIGTERM:when=${when}`, program.executable)).toEqual(
        ended(dies ? { stderr: WARNING, signalCode: "SIGTERM" } : { stderr: WARNING + MESSAGE }),
      );
    });
  }

  strace.test("no call that gives memory back, or protects it, fails", async () => {
    const calls = await traceLines("munmap,madvise,mprotect", program.executable);
    expect(calls.filter((call) => call.includes("= -1 "))).toEqual([]);
    if (program === hosted) expect(calls.length).toBeGreaterThan(0);
  });
});

/** Which calls of mprotect make pages of ours executable: those of the routines, and of what unmaps all else. */
async function seals(): Promise<readonly number[]> {
  const size = Math.max(1 << 14, Number(must("getconf", "PAGESIZE")));
  const calls = await traceLines("mprotect", hosted.executable);
  const found = numbersOf(calls, new RegExp(`${size}, PROT_READ\\|PROT_EXEC`));
  expect(found).toHaveLength(2);
  return found;
}

strace.test("memory that cannot be made executable is one line and exit code 1", async () => {
  const [when] = await seals();
  const stderr = `${WARNING}Error: no executable memory for the signal handlers\n`;
  expect(await runInjected("mprotect", `error=EINVAL:when=${when}`, hosted.executable)).toEqual(
    ended({ stderr, exitCode: 1 }),
  );
});

strace.test("where the runtime cannot be given back it stays, and all else is as ever", async () => {
  const [, when] = await seals();
  await using child = outside(injectCommand("mprotect", `error=EINVAL:when=${when}`, hosted.executable));
  await untilAtRest(child, hosted, { runtime: "may stay" });
  expect(runtimeIsGone(child.pid, hosted)).toBe(false);
  expect(await child.end("SIGTERM")).toEqual(ended({ stderr: WARNING + MESSAGE }));
});

strace.test("a SIGTERM that comes in mprotect finds a handler that can be run", async () => {
  for (const when of await seals())
    expect(await runInjected("mprotect", `signal=SIGTERM:when=${when}`, hosted.executable)).toEqual(
      ended({ stderr: WARNING + MESSAGE }),
    );
});

strace.test("no page is writable and executable at once, but for Bun's JIT", async () => {
  const calls = await traceLines("mmap,mprotect", hosted.executable);
  // The JIT's are a gigabyte.
  const both = calls.filter((call) => call.includes("PROT_WRITE|PROT_EXEC"));
  for (const call of both) expect(Number(/, (\d+), PROT_/.exec(call)?.[1])).toBeGreaterThanOrEqual(2 ** 28);
  expect(calls.some((call) => call.includes("PROT_READ|PROT_EXEC"))).toBe(true);
});

strace.test("no file of the working directory is read", async () => {
  const paths = (await traceLines("file", hosted.executable)).flatMap(
    (call) => /^(?:open|openat|access|stat|newfstatat|readlink|statx)\(.*?"([^"]*)"/.exec(call)?.[1] ?? [],
  );
  expect(paths.length).toBeGreaterThan(0);
  expect(
    paths.filter(
      (path) => !/^\/(etc|lib|usr|proc|sys|dev)\//.test(path) && path !== "" && path !== hosted.executable,
    ),
  ).toEqual([]);
});

strace.test("SIGPWR finds its default, not Bun's handler, from the moment on when Bun goes", async () => {
  // The executable's first address: Bun's code goes with it.
  const [first = 0] = numbersOf(await traceLines("munmap", hosted.executable), /^munmap\(0x200000,/);
  expect(first).toBeGreaterThan(0);
  // How many calls there are is chance: ranges that happen to lie side by side go by one.
  for (let when = first, rests = false; !rests; when++) {
    await using trace = startTraced("munmap", [hosted.executable], `signal=SIGPWR:when=${when}`);
    rests = await restsOrEnds(trace.child, hosted);
    const calls = trace.lines().filter((line) => line.includes("munmap(")).length;
    const { signalCode } = await trace.child.end("SIGTERM");
    // It rests where there is no such call any more.
    expect({ when, signalCode, rests }).toEqual({
      when,
      signalCode: rests ? null : "SIGPWR",
      rests: calls < when,
    });
    if (rests) expect(when).toBeGreaterThan(first);
  }
});

describeEach(
  (program) => {
    strace.test("at rest no system calls are left but those of its signals", async () => {
      const { rest } = await callsOfALife(startTraced("all", [program.executable]));
      expect(rest).toEqual(["exit_group", PAUSE, "rt_sigreturn", "wait4", "write"]);
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
  const { start, rest } = await callsOfALife(startTraced("all", [hosted.executable]));
  const all = [...start, ...rest];
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
