import { expect } from "bun:test";
import { readdirSync, readlinkSync } from "node:fs";
import {
  describeEach,
  ended,
  expectAlike,
  expectTerminates,
  INTERRUPTED,
  MESSAGE,
  needing,
  WARNING,
} from "../helpers/expect.ts";
import { inNewNamespace, NAMESPACES, outside, Pod } from "../helpers/pod.ts";
import { childrenOf, output, proc, status, until } from "../helpers/process.ts";
import { compile, type Program } from "../helpers/programs.ts";
import { CAUGHT, restsOrEnds, type Surroundings, untilAtRest } from "../helpers/rest.ts";
import { CC } from "../helpers/tools.ts";

const { test } = needing(NAMESPACES);

const SIGKILL = 9;
const SIGSTOP = 19;
const signals = Array.from({ length: 64 }, (_, index) => index + 1).filter(
  (n) => n !== SIGKILL && n !== SIGSTOP,
);
const cc = needing(NAMESPACES, CC);

/** What a signal to PID 1 leads to: how it ended, or what it is like when it rests again. */
async function outcome(program: Program, signo: number, from: "inside" | "outside") {
  await using pod = await Pod.atRest(program);
  if (from === "inside") pod.exec("sh", "-c", `kill -${signo} 1`);
  else output(["sh", "-c", `kill -${signo} ${pod.pid}`]);
  if (!(await restsOrEnds(pod, program))) return await pod.end();
  const fields = ["State", "SigCgt", "SigIgn", "SigBlk"].map((field) => status(pod.pid, field));
  await expectTerminates(pod);
  return fields;
}

/** SIGINT and SIGTERM, and what PID 1 says of them. */
const messages: Record<number, string> = { 2: INTERRUPTED, 15: MESSAGE };

for (const from of ["inside", "outside"] as const)
  for (const signo of signals)
    test(`signal ${signo} to PID 1 from ${from} the namespace`, async () => {
      const found = await expectAlike((program) => outcome(program, signo, from));
      const stderr = messages[signo];
      if (stderr !== undefined) expect(found).toEqual(ended({ stderr }));
    });

/** The descriptors of a process: what they lead to and, of an eventpoll, what it watches and with what data. */
function descriptorsOf(pid: number): Record<string, string> {
  const descriptors = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    const watched = proc(pid, `fdinfo/${fd}`).match(/^tfd: *\d+ events: *\w+ data: *\w+/gm) ?? [];
    return [fd, [readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/:\[\d+\]$/, ""), ...watched].join(" ")];
  });
  return Object.fromEntries(descriptors);
}

/** A process that is not PID 1: a shell that runs `setup` and becomes the program, which a SIGINT then ends. */
async function outsideOfPod(program: Program, setup: string, surroundings?: Surroundings) {
  await using child = outside(["bash", "-c", `${setup} "$@"`, "bash", program.executable]);
  await untilAtRest(child, program, surroundings);
  const found = {
    status: ["Threads", "SigBlk", "SigIgn", "SigCgt"].map((field) => status(child.pid, field)),
    descriptors: descriptorsOf(child.pid),
  };
  return { ...found, end: await child.end("SIGINT") };
}

const TERM = "0000000000004000";
const setups: Record<string, readonly [setup: string, surroundings?: Surroundings]> = {
  "as it comes": ["exec"],
  "with HUP, QUIT and RTMIN ignored": ["trap '' HUP QUIT RTMIN; exec"],
  "with HUP, USR1 and CHLD blocked": [
    "exec env --block-signal=HUP,USR1,CHLD",
    { blocked: "0000000000010201" },
  ],
  "with TERM blocked and pending": [
    `exec env --block-signal=TERM bash -c 'kill -TERM $$; exec "$@"' bash`,
    { blocked: TERM, pending: TERM },
  ],
  "with descriptors 3, 5 and 9": ["exec 3</dev/null 5</etc/passwd 9>/dev/null; exec"],
  "with descriptors 3 to 6": ["exec 3</dev/null 4</dev/null 5</dev/null 6</dev/null; exec"],
  "without standard input": ["exec <&-; exec"],
  "without standard output": ["exec >&-; exec"],
};

for (const [name, [setup, surroundings]] of Object.entries(setups))
  test(`at rest all programs are alike: ${name}`, async () => {
    const { status, end } = await expectAlike((program) => outsideOfPod(program, setup, surroundings));
    expect(status).toContain(CAUGHT);
    expect(end).toEqual(ended({ stderr: WARNING + INTERRUPTED }));
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
    const setup = `exec ${redirections}; exec ${surroundings} eventpoll`;
    const inherits = {
      "3": "pipe",
      "4": "anon_inode:[eventpoll] tfd:        3 events:       19 data:         70617573",
      ...(redirections.includes("5<") ? { "5": "/dev/null", "6": "/dev/null", "7": "/dev/null" } : {}),
    };
    await expectAlike(async (program) => {
      const { descriptors, end } = await outsideOfPod(program, setup);
      expect({ program: program.name, descriptors }).toMatchObject({
        program: program.name,
        descriptors: inherits,
      });
      // Where it cannot be known what Bun opened, that may stay.
      return end;
    });
  });

/** What it writes where nobody reads its outputs. */
const unread: Record<string, readonly [args: readonly string[], isPid1: boolean]> = {
  "the version": [["-v"], false],
  "the warning": [[], false],
  "the version, as PID 1": [["-v"], true],
  "the last message, as PID 1": [[], true],
};

for (const [name, [args, isPid1]] of Object.entries(unread))
  cc.test(`into a pipe that is closed: ${name}`, async () => {
    const found = await expectAlike(async (program) => {
      const by = [compile("surroundings"), "closed-pipe"];
      if (isPid1 && args.length === 0) {
        await using pod = await Pod.atRest(program, by);
        return await pod.end("SIGTERM");
      }
      const command = [...by, program.executable, ...args];
      return output(isPid1 ? inNewNamespace(...command) : command);
    });
    // PID 1 is spared by SIGPIPE.
    expect(found).toEqual(ended(isPid1 ? {} : { signalCode: "SIGPIPE" }));
  });

/** How often a process gave up the processor by itself. */
const switches = (pid: number) => Number(status(pid, "voluntary_ctxt_switches"));

describeEach((program) => {
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
