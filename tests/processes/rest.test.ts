/**
 * The resting state: what is left of the runtime, and that nothing but it, or an end, ever follows a start.
 */
import { expect } from "bun:test";
import { random } from "../helpers/dice.ts";
import { describeEach, ended, expectTerminates, MESSAGE, needing, WARNING } from "../helpers/expect.ts";
import { NAMESPACES, observable, outside, Pod, UNPRIVILEGED } from "../helpers/pod.ts";
import { childrenOf, must, output, proc, status, until } from "../helpers/process.ts";
import { hosted, type Program, reference } from "../helpers/programs.ts";
import { CAUGHT, isAtRest, restsOrEnds, runtimeIsGone, untilAtRest } from "../helpers/rest.ts";
import { ROOT } from "../helpers/tools.ts";

const { test } = needing(NAMESPACES);

/** Nothing is left of the start: neither its executable, but for what belongs there, nor its threads and its heap. */
function expectRuntimeGone(pid: number, program: Program): void {
  expect(runtimeIsGone(pid, program)).toBe(true);
  expect(proc(pid, "maps")).not.toMatch(/ .wx. /);
  // In kB: about 9 pages are left. What libc and the stack have to give back are 60 kB.
  const pageSize = Number(must("getconf", "PAGESIZE"));
  expect(Number.parseInt(status(pid, "RssAnon"), 10)).toBeLessThanOrEqual((16 * pageSize) / 1024);
}

describeEach((program) => {
  test("at rest nothing of the runtime is mapped", async () => {
    await using pod = await Pod.atRest(program);
    expectRuntimeGone(pod.pid, program);
    await expectTerminates(pod);
  });

  test("on a terminal, where Bun catches more signals, nothing of the runtime is mapped either", async () => {
    const run = `exec ${observable(program.executable).join(" ")}`;
    await using terminal = Bun.spawn(["script", "--quiet", "--return", "--command", run, "/dev/null"], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    await until("a child", () => childrenOf(terminal.pid).length === 1, terminal);
    const [pid] = childrenOf(terminal.pid);
    if (pid === undefined) throw new Error("nothing on the terminal");
    await untilAtRest({ pid }, program);
    expectRuntimeGone(pid, program);
    process.kill(pid, "SIGTERM");
    expect(await terminal.exited).toBe(0);
  });

  test("a process of the same user looks into it only if it is the reference", async () => {
    await using child = Bun.spawn([...UNPRIVILEGED, program.executable], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    // Who is not root is the same user, and may not look either.
    await untilAtRest(child, program, process.getuid?.() === 0 ? {} : { runtime: "may stay" });
    for (const look of ["cat maps", "cat environ", "ls fd/", "ls root/"]) {
      const { exitCode } = output([...UNPRIVILEGED, "sh", "-c", `cd /proc/${child.pid} && ${look}`]);
      expect([look, exitCode === 0]).toEqual([look, program === reference]);
    }
  });

  needing(ROOT).test("who is root without CAP_SYS_PTRACE joins the namespaces of a root PID 1", async () => {
    const nested = ["setpriv", "--bounding-set=-sys_ptrace"];
    await using pod = await Pod.atRest(program, nested);
    expect(output([...nested, ...pod.inside("true")])).toEqual(ended({}));
  });

  test("200 started at once all come to rest", async () => {
    await using stack = new AsyncDisposableStack();
    const children = Array.from({ length: 200 }, () => stack.use(outside([program.executable])));
    for (const child of children) {
      await untilAtRest(child, program);
      expectRuntimeGone(child.pid, program);
    }
    for (const child of children) child.kill("SIGTERM");
    for (const child of children) expect(await child.exited).toBe(0);
  });
});

/** With ld.so.cache the loader leaves a hole beside libc. In the image there is none, nor where few libraries are. */
for (const [where, by] of Object.entries({
  "as it comes": [],
  "without ld.so.cache": ["sh", "-c", 'mount --bind /dev/null /etc/ld.so.cache && exec "$0"'],
}))
  test(`the routines lie beside libc, further away they take page tables of their own: ${where}`, async () => {
    await using pod = await Pod.atRest(hosted, by);
    const maps = proc(pod.pid, "maps");
    const startOf = (line: RegExp) => Number.parseInt(line.exec(maps)?.[1] ?? "", 16);
    const routines = startOf(/^(\w+)-\w+ r-xp 00000000 00:00 0 *$/m);
    expect(Math.abs(routines - startOf(/^(\w+)-.*libc/m))).toBeLessThan(8 * 2 ** 20);
  });

/** Settings that start threads of the runtime, or compile what has hardly run: it works just the same. */
const settings: Record<string, Record<string, string>> = {
  "a debugger": { BUN_INSPECT: "127.0.0.1:0" },
  "a JIT at once": { BUN_JSC_thresholdForJITAfterWarmUp: "1" },
  "a JIT ten times as soon": { BUN_JSC_jitPolicyScale: "0.1" },
};

for (const [name, env] of Object.entries(settings))
  test(`with ${name} the runtime may stay, and it works just the same`, async () => {
    await using child = outside([hosted.executable], env);
    await untilAtRest(child, hosted, { runtime: "may stay" });
    // Threads and mappings go together.
    expect(proc(child.pid, "maps").includes(hosted.executable)).toBe(status(child.pid, "Threads") !== "1");
    child.kill("SIGCHLD");
    expect(await child.end("SIGTERM")).toEqual(ended({ stderr: WARNING + MESSAGE }));
  });

test("JSC_SIGNAL_FOR_GC=10: with a handler of Bun's the runtime stays, and it survives that signal", async () => {
  await using pod = await Pod.atRest(hosted, ["env", "JSC_SIGNAL_FOR_GC=10"], {
    caught: "0000000000014202",
    runtime: "may stay",
  });
  expect(proc(pod.pid, "maps")).toContain(hosted.executable);
  expect(pod.exec("sh", "-c", "kill -10 1").exitCode).toBe(0);
  await expectTerminates(pod);
});

/**
 * JavaScriptCore starts a thread, with which the runtime stays, when its heap has so many blocks: 64 if nothing is set.
 * What is missing to that is the margin for a Bun that takes more.
 */
const BLOCKS = 56;

test(`with a heap of ${BLOCKS} blocks at most the runtime is given back`, async () => {
  for (let start = 0; start < 20; start++) {
    await using child = outside([hosted.executable], {
      BUN_JSC_warmUpMarkedBlockStartAfterBlocks: String(BLOCKS),
    });
    await untilAtRest(child, hosted);
  }
});

const STARTS = 1000;
const AT_ONCE = 4;
const SIGNALS = ["SIGTERM", "SIGINT", "SIGCHLD", "SIGSEGV"] as const;

/** How far a start has come. */
type Window = "before the handlers" | "on the way to rest" | "at rest";

function windowOf(pid: number, program: Program): Window {
  if (isAtRest(pid, program)) return "at rest";
  return status(pid, "SigCgt").endsWith(CAUGHT.slice(-5)) ? "on the way to rest" : "before the handlers";
}

/** The longest of some starts, in milliseconds. */
async function longestStart(program: Program): Promise<number> {
  let longest = 0;
  for (let start = 0; start < 10; start++) {
    const begin = performance.now();
    await using child = outside([program.executable]);
    await untilAtRest(child, program);
    longest = Math.max(longest, performance.now() - begin);
  }
  return longest;
}

describeEach((program) => {
  test(`${STARTS} starts with a signal at a random moment leave a resting process or one that has ended`, async () => {
    const next = random(20261124);
    const longest = await longestStart(program);
    const hits: Record<Window, number> = { "before the handlers": 0, "on the way to rest": 0, "at rest": 0 };
    const one = async (signal: (typeof SIGNALS)[number], delay: number) => {
      await using child = outside([program.executable]);
      // In Bun's first milliseconds its own handler of SIGSEGV ends in a crash report or hangs: see LIMITS.md.
      if (signal === "SIGSEGV")
        await until("our handlers", () => status(child.pid, "SigCgt").endsWith("2"), child);
      const begin = performance.now();
      while (performance.now() - begin < delay) await new Promise(setImmediate);
      hits[windowOf(child.pid, program)]++;
      child.kill(signal);
      await restsOrEnds(child, program);
      const { exitCode, signalCode } = await child.end("SIGTERM");
      const ending = signalCode ?? exitCode;
      if (ending !== 0) expect(ending, `at ${delay} ms`).toBe(signal);
    };
    // The others are at rest before they can be looked at: tests/processes/faults.test.ts has their windows.
    const windows: Window[] =
      program === hosted ? ["before the handlers", "on the way to rest", "at rest"] : ["at rest"];
    // Which window a signal meets is chance, so there are more starts until each was met.
    for (let started = 0; started < STARTS || windows.some((window) => hits[window] < 5); started += AT_ONCE)
      await Promise.all(SIGNALS.map((signal) => one(signal, next() * longest)));
  });
});
