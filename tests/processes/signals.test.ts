import { expect, test } from "bun:test";
import { readdirSync, readlinkSync } from "node:fs";
import { describeEach, expectAlike, expectTerminates, MESSAGE, needing } from "../helpers/expect.ts";
import { inNewNamespace, outside, Pod } from "../helpers/pod.ts";
import { childrenOf, output, proc, status, until } from "../helpers/process.ts";
import { compile, type Program } from "../helpers/programs.ts";
import { CAUGHT, isAtRest, untilAtRest } from "../helpers/rest.ts";
import { CC } from "../helpers/tools.ts";

const SIGKILL = 9;
const SIGSTOP = 19;
const signals = Array.from({ length: 64 }, (_, index) => index + 1).filter(
  (n) => n !== SIGKILL && n !== SIGSTOP,
);
const cc = needing(CC);

/** What a signal to PID 1 leads to: how it ended, or what it is like when it rests again. */
async function outcome(program: Program, signo: number, from: "inside" | "outside") {
  await using pod = await Pod.atRest(program);
  if (from === "inside") pod.exec("sh", "-c", `kill -${signo} 1`);
  else output(["sh", "-c", `kill -${signo} ${pod.pid}`]);
  const gone = () => /^[ZX]|^$/.test(status(pod.pid, "State"));
  const stopped = () => status(pod.pid, "State").startsWith("T");
  await until("an outcome", () => gone() || stopped() || isAtRest(pod.pid, program), pod);
  if (gone()) return await pod.end();
  const fields = ["State", "SigCgt", "SigIgn", "SigBlk"].map((field) => status(pod.pid, field));
  await expectTerminates(pod);
  return fields;
}

for (const from of ["inside", "outside"] as const)
  for (const signo of signals)
    test(`signal ${signo} to PID 1 from ${from} the namespace`, async () => {
      await expectAlike((program) => outcome(program, signo, from));
    });

describeEach((program) => {
  for (const [signal, description] of [
    ["SIGTERM", "Terminated"],
    ["SIGINT", "Interrupt"],
  ] as const)
    test(`${signal} ends PID 1 with a message and 0`, async () => {
      await using pod = await Pod.atRest(program);
      expect(await pod.end(signal)).toEqual({
        stdout: "",
        stderr: `Shutting down, got signal: ${description}\n`,
        exitCode: 0,
        signalCode: null,
      });
    });
});

/** The descriptors of a process: what they lead to and, of an eventpoll, what it watches and with what data. */
function descriptorsOf(pid: number): Record<string, string> {
  const descriptors = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    const watched = proc(pid, `fdinfo/${fd}`).match(/^tfd: *\d+ events: *\w+ data: *\w+/gm) ?? [];
    return [fd, [readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/:\[\d+\]$/, ""), ...watched].join(" ")];
  });
  return Object.fromEntries(descriptors);
}

/** A process that is not PID 1, started by a shell that runs `setup` before. */
async function outsideOfPod(program: Program, setup: string) {
  await using child = outside(["bash", "-c", `${setup} exec "$@"`, "bash", program.executable]);
  await untilAtRest(child, program);
  const found = {
    status: ["Threads", "SigBlk", "SigIgn", "SigCgt"].map((field) => status(child.pid, field)),
    descriptors: descriptorsOf(child.pid),
  };
  child.kill("SIGTERM");
  return { ...found, stderr: await new Response(child.stderr).text(), exitCode: await child.exited };
}

const setups: Record<string, string> = {
  "as it comes": "",
  "with HUP, QUIT and RTMIN ignored": "trap '' HUP QUIT RTMIN;",
  "with descriptors 3, 5 and 9": "exec 3</dev/null 5</etc/passwd 9>/dev/null;",
  "with descriptors 3 to 6": "exec 3</dev/null 4</dev/null 5</dev/null 6</dev/null;",
  "without standard input": "exec <&-;",
  "without standard output": "exec >&-;",
};

for (const [name, setup] of Object.entries(setups))
  test(`at rest it is what the reference is: ${name}`, async () => {
    const { status } = await expectAlike((program) => outsideOfPod(program, setup));
    expect(status).toContain(CAUGHT);
  });

// What Bun itself opens first: an eventpoll. It must not be taken for one that the parent left.
const inherited: Record<string, string> = {
  "an eventpoll at 4 that watches a pipe at 3": "",
  "the same, and no standard input": "<&-",
  "the same, and something at 5, 6 and 7": "5</dev/null 6</dev/null 7</dev/null",
};

for (const [name, redirections] of Object.entries(inherited))
  cc.test(`every inherited descriptor stays open: ${name}`, async () => {
    const surroundings = compile("surroundings");
    const setup = `exec ${redirections}; set -- ${surroundings} eventpoll "$@";`;
    const inherits = {
      "3": "pipe",
      "4": "anon_inode:[eventpoll] tfd:        3 events:       19 data:         70617573",
      ...(redirections.includes("5<") ? { "5": "/dev/null", "6": "/dev/null", "7": "/dev/null" } : {}),
    };
    await expectAlike(async (program) => {
      const { descriptors, stderr, exitCode } = await outsideOfPod(program, setup);
      expect({ program: program.name, descriptors }).toMatchObject({
        program: program.name,
        descriptors: inherits,
      });
      // Where it cannot be known what Bun opened, that may stay.
      return { stderr, exitCode };
    });
  });

/** Where nobody reads its outputs: how it ends. PID 1 is spared by SIGPIPE. */
const unread: Record<
  string,
  readonly [args: readonly string[], isPid1: boolean, end: NodeJS.Signals | number]
> = {
  "the version": [["-v"], false, "SIGPIPE"],
  "the warning": [[], false, "SIGPIPE"],
  "the version, as PID 1": [["-v"], true, 0],
  "the last message, as PID 1": [[], true, 0],
};

for (const [name, [args, isPid1, end]] of Object.entries(unread))
  cc.test(`into a pipe that is closed: ${name}`, async () => {
    const found = await expectAlike(async (program) => {
      const command = [compile("surroundings"), "closed-pipe", program.executable, ...args];
      if (isPid1 && args.length === 0) {
        await using pod = await Pod.start(command);
        await untilAtRest(pod, program);
        return (await pod.end("SIGTERM")).exitCode;
      }
      const { exitCode, signalCode } = output(isPid1 ? inNewNamespace(...command) : command);
      return signalCode ?? exitCode;
    });
    expect(found).toBe(end);
  });

/** HUP, USR1 and CHLD. */
const BLOCKED = "0000000000010201";

describeEach((program) => {
  test("the signal mask is the inherited one", async () => {
    await using child = outside(["env", "--block-signal=HUP,USR1,CHLD", program.executable]);
    await untilAtRest(child, program, { blocked: BLOCKED });
    child.kill("SIGTERM");
    expect(await new Response(child.stderr).text()).toEndWith(MESSAGE);
    expect(await child.exited).toBe(0);
  });

  test("a child that is stopped and continued does not wake PID 1 (SA_NOCLDSTOP)", async () => {
    await using pod = await Pod.atRest(program);
    const shell = Bun.spawn(pod.inside("sh", "-c", "sleep infinity & exec true"), { stdout: "ignore" });
    await shell.exited;
    await until("an orphan", () => childrenOf(pod.pid).length === 1, pod);
    await untilAtRest(pod, program);
    const [orphan] = childrenOf(pod.pid);
    if (orphan === undefined) throw new Error("no orphan");
    const before = switches(pod.pid);
    for (let round = 0; round < 20; round++) {
      process.kill(orphan, "SIGSTOP");
      await until("stopped", () => status(orphan, "State").startsWith("T"), { pid: orphan });
      process.kill(orphan, "SIGCONT");
      await until("continued", () => !status(orphan, "State").startsWith("T"), { pid: orphan });
    }
    // On a busy machine it may not have run yet.
    await untilAtRest(pod, program);
    expect(switches(pod.pid)).toBe(before);
    // That it would show: the orphan's death does wake it.
    process.kill(orphan, "SIGKILL");
    await until("reaped", () => childrenOf(pod.pid).length === 0, pod);
    // Counted when it sleeps again.
    await until("a switch", () => switches(pod.pid) > before, pod);
    expect(proc(orphan, "status")).toBe("");
  });
});

/** How often a process gave up the processor by itself. */
const switches = (pid: number) => Number(status(pid, "voluntary_ctxt_switches"));
