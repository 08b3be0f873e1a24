/**
 * The resting state: what is left of the runtime, and that nothing but it, or an end, ever follows a start.
 */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseMaps, parseStartstack, surplus } from "../ffi/memory.ts";
import { offsetof } from "../ffi/runtime.ts";
import {
  both,
  CC,
  childrenOf,
  dist,
  expectTerminates,
  must,
  needs,
  observable,
  output,
  Pod,
  pause,
  proc,
  random,
  reference,
  rest,
  resting,
  root,
  status,
  UNPRIVILEGED,
  until,
} from "./host.ts";

const QUIET = ["ignore", "ignore", "pipe"] as const;
const start = (env: Record<string, string> = {}) =>
  Bun.spawn(observable(pause), { stdio: [...QUIET], env: { ...process.env, ...env } });

/** The process is at rest, and Bun's executable is still in memory (or not). */
function expectRuntime(pid: number, mapped: boolean): void {
  const maps = proc(pid, "maps");
  expect(maps.includes(pause)).toBe(mapped);
  if (mapped) return;
  expect(status(pid, "Threads")).toBe("1");
  expect(maps).not.toMatch(/ .wx. /);
  // A runtime that is still there has more than 2,000 kB.
  expect(Number.parseInt(status(pid, "RssAnon"), 10)).toBeLessThan(300);
}

test("at rest nothing of the runtime is mapped", async () => {
  await using pod = await Pod.resting(pause);
  expectRuntime(pod.pid, false);
  await expectTerminates(pod);
});

test("on a terminal, where Bun catches more signals, nothing of the runtime is mapped either", async () => {
  const command = [
    "script",
    "--quiet",
    "--return",
    "--command",
    `exec ${observable(pause).join(" ")}`,
    "/dev/null",
  ];
  await using terminal = Bun.spawn(command, { stdio: ["ignore", "ignore", "ignore"] });
  const pid = () => childrenOf(terminal.pid)[0] ?? 0;
  await until("rest", () => resting(pid()));
  expectRuntime(pid(), false);
  process.kill(pid(), "SIGTERM");
  expect(await terminal.exited).toBe(0);
});

test("a process of the same user looks into it only if it is the reference", async () => {
  for (const executable of both.filter(Boolean)) {
    await using child = Bun.spawn([...UNPRIVILEGED, executable], { stdio: ["ignore", "ignore", "ignore"] });
    await rest(child.pid);
    for (const look of ["cat maps", "cat environ", "ls fd/", "ls root/"]) {
      const { exitCode } = output([...UNPRIVILEGED, "sh", "-c", `cd /proc/${child.pid} && ${look}`]);
      expect([executable, look, exitCode === 0]).toEqual([executable, look, executable === reference]);
    }
  }
});

test.skipIf(process.getuid?.() !== 0)(
  "who is root without CAP_SYS_PTRACE joins the namespaces of a root PID 1, as the reference's",
  async () => {
    for (const executable of both.filter(Boolean)) {
      const nested = ["setpriv", "--bounding-set=-sys_ptrace"];
      await using pod = await Pod.resting(...nested, executable);
      expect(output([...nested, ...pod.inside("true")])).toMatchObject({ stderr: "", exitCode: 0 });
    }
  },
);

/** Settings that start threads of the runtime, or compile what has hardly run. */
const settings = {
  BUN_INSPECT: "127.0.0.1:0",
  BUN_JSC_thresholdForJITAfterWarmUp: "1",
  BUN_JSC_jitPolicyScale: "0.1",
};

for (const [name, value] of Object.entries(settings)) {
  test(`${name}=${value}: with another thread the runtime stays, and it works just the same`, async () => {
    await using child = start({ [name]: value });
    await until("the handlers", () => status(child.pid, "SigCgt").endsWith("14002") && resting(child.pid));
    expectRuntime(child.pid, status(child.pid, "Threads") !== "1");
    process.kill(child.pid, "SIGCHLD");
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    expect(await new Response(child.stderr).text()).toEndWith("Shutting down, got signal: Terminated\n");
  });
}

test("JSC_SIGNAL_FOR_GC=10: with a handler of Bun's the runtime stays, and it survives that signal", async () => {
  await using pod = await Pod.start(["env", "JSC_SIGNAL_FOR_GC=10", pause]);
  await until(
    "the handlers",
    () => status(pod.pid, "SigCgt").endsWith("14202") && status(pod.pid, "SigBlk") === "0000000000000000",
  );
  expectRuntime(pod.pid, true);
  expect(pod.exec("sh", "-c", "kill -10 1").exitCode).toBe(0);
  await expectTerminates(pod);
});

test("200 started at once all come to rest", async () => {
  const children = Array.from({ length: 200 }, () => start());
  for (const { pid } of children) {
    await rest(pid);
    expectRuntime(pid, false);
  }
  for (const child of children) child.kill("SIGTERM");
  for (const child of children) expect(await child.exited).toBe(0);
});

const STARTS = 1000;
const AT_ONCE = 4;
/** A start takes about 20 ms here. */
const LATEST = 25;

test(`${STARTS} starts with a signal at a random moment leave a resting process or one that has ended`, async () => {
  const next = random(20261124);
  const signals = ["SIGTERM", "SIGINT", "SIGCHLD", "SIGSEGV"] as const;
  const endings: Record<string, Set<string>> = {};
  const one = async (signal: (typeof signals)[number], delay: number) => {
    const child = start();
    const ended = () => child.exitCode !== null || child.signalCode !== null;
    // In Bun's first milliseconds its own handler of SIGSEGV ends in a crash report or hangs: see the README.
    if (signal === "SIGSEGV") await until("our handlers", () => status(child.pid, "SigCgt").endsWith("2"));
    const begin = performance.now();
    while (performance.now() - begin < delay) await new Promise(setImmediate);
    process.kill(child.pid, signal);
    await until(`an end or rest after ${signal} at ${delay} ms`, () => ended() || resting(child.pid));
    child.kill("SIGTERM");
    await child.exited;
    endings[signal] ??= new Set();
    endings[signal].add(String(child.signalCode ?? child.exitCode));
  };
  for (let started = 0; started < STARTS; started += AT_ONCE)
    await Promise.all(
      Array.from({ length: AT_ONCE }, (_, index) => one(signals[index] ?? "SIGTERM", next() * LATEST)),
    );
  for (const signal of signals)
    for (const ending of endings[signal] ?? []) expect(["0", signal]).toContain(ending);
});

test("parseMaps reads what the kernel writes", () => {
  const text = readFileSync("/proc/self/maps", "utf8");
  const mappings = parseMaps(text) ?? [];
  expect(mappings.length).toBe(text.trimEnd().split("\n").length);
  expect(mappings.some(({ name }) => name === "[stack]")).toBe(true);
  expect(mappings.some(({ name }) => /\/libc[.-]/.test(name))).toBe(true);
});

test("parseMaps refuses what it does not understand", () => {
  const line = "1000-2000 r-xp 00000000 fe:00 338944                                     /lib/x.so\n";
  expect(parseMaps(line)).toEqual([{ start: 0x1000, end: 0x2000, permissions: "r-xp", name: "/lib/x.so" }]);
  for (const text of [
    "",
    "\n",
    "x\n",
    "2000-1000 r-xp 00000000 fe:00 1\n",
    `${line}${line}`,
    line.slice(0, 20),
    "1000 2000 r-xp\n",
  ])
    expect(parseMaps(text)).toBeUndefined();
});

test("parseStartstack finds the stack behind any name", () => {
  const rest = Array.from({ length: 50 }, (_, index) => index + 4).join(" ");
  expect(parseStartstack(`1 (a) b) (c) S ${rest}`)).toBe(28);
  for (const text of ["", "1", "1 (x) S 1 2 3", `1 (x) S ${rest.replace("28", "x")}`])
    expect(parseStartstack(text)).toBeUndefined();
});

test("surplus is all but what is kept, and holes with it", () => {
  const range = (start: number, end: number) => ({ start, end });
  const mappings = [range(1, 5), range(5, 9), range(12, 20), range(30, 40), range(2 ** 40, 2 ** 40 + 1)];
  expect(surplus(mappings, [range(38, 50), range(0, 6), range(14, 15), range(25, 26)])).toEqual([
    range(6, 14),
    range(15, 20),
    range(30, 38),
    range(2 ** 40, 2 ** 40 + 1),
  ]);
  expect(surplus(mappings, [])).toEqual([range(1, 40), range(2 ** 40, 2 ** 40 + 1)]);
  expect(surplus(mappings, [range(0, 2 ** 41)])).toEqual([]);
});

const compilers = {
  "x86-64": ["cc", CC],
  arm64: [
    "aarch64-linux-gnu-gcc",
    { "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross" },
  ],
} as const;

for (const [architecture, [compiler, tools]] of Object.entries(compilers)) {
  const { skip, name } = needs(tools);
  test.skipIf(skip)(name(`ucontext_t is laid out as C does on ${architecture}`), () => {
    // A wrong offset is an error of the compiler.
    const asserts = Object.entries(offsetof).map(
      ([field, offset]) =>
        `_Static_assert(offsetof(ucontext_t, uc_stack.${field}) == ${offset}, "${field}");`,
    );
    const source = join(dist, "ucontext.c");
    const headers = "#include <stddef.h>\n#include <ucontext.h>\n";
    Bun.write(
      source,
      `${headers}${asserts.join("\n")}\n_Static_assert(sizeof(ucontext_t) <= 8192, "size");\n`,
    );
    must(compiler, "-fsyntax-only", source);
  });
}

test("init.ts has at most 80 lines that are not empty", () => {
  expect(
    readFileSync(join(root, "init.ts"), "utf8")
      .split("\n")
      .filter((line) => line.trim() !== "").length,
  ).toBeLessThanOrEqual(80);
});
