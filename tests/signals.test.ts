import { expect, test } from "bun:test";
import {
  CAUGHT,
  CC,
  childrenOf,
  expectTerminates,
  needs,
  observable,
  output,
  Pod,
  pause,
  proc,
  reference,
  rest,
  resting,
  status,
  until,
} from "./host.ts";

const SIGKILL = 9;
const SIGSTOP = 19;
const signals = Array.from({ length: 64 }, (_, index) => index + 1).filter(
  (n) => n !== SIGKILL && n !== SIGSTOP,
);
const cc = needs(CC);

test("SIGINT and SIGTERM end PID 1 with a message and 0", async () => {
  await using terminated = await Pod.resting(pause);
  await expectTerminates(terminated);
  await using interrupted = await Pod.resting(pause);
  expect(await interrupted.end("SIGINT")).toMatchObject({
    stderr: "Shutting down, got signal: Interrupt\n",
    exitCode: 0,
  });
});

/** What a signal to PID 1 leads to: how it ended, or what it is like when it rests again. */
async function outcome(executable: string, signo: number, from: "inside" | "outside") {
  await using pod = await Pod.resting(executable);
  if (from === "inside") pod.exec("sh", "-c", `kill -${signo} 1`);
  else output(["sh", "-c", `kill -${signo} ${pod.pid}`]);
  await until(
    "an outcome",
    () => !/^[RD]/.test(status(pod.pid, "State")) && status(pod.pid, "ShdPnd") !== "0",
  );
  const state = status(pod.pid, "State");
  if (state === "" || state.startsWith("Z")) return await pod.end();
  await until("an outcome", () => status(pod.pid, "State").startsWith("T") || resting(pod.pid));
  const fields = ["State", "SigCgt", "SigIgn", "SigBlk"].map((field) => status(pod.pid, field));
  await expectTerminates(pod);
  return fields;
}

for (const from of ["inside", "outside"] as const) {
  for (const signo of signals) {
    test.skipIf(cc.skip)(cc.name(`signal ${signo} to PID 1 from ${from} the namespace`), async () => {
      expect(await outcome(pause, signo, from)).toEqual(await outcome(reference, signo, from));
    });
  }
}

/** A process that is not PID 1, started by a shell that runs `setup` before. */
async function outsideOfPod(executable: string, setup: string) {
  const child = Bun.spawn(observable("bash", "-c", `${setup} exec ${executable}`), {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  await rest(child.pid);
  const descriptors = output([
    "bash",
    "-c",
    `cd /proc/${child.pid}/fd && for fd in *; do echo $fd $(readlink $fd); done`,
  ]);
  const found = {
    status: ["Threads", "SigBlk", "SigIgn", "SigCgt"].map((field) => status(child.pid, field)),
    descriptors: descriptors.stdout.replace(/:\[\d+\]/g, ""),
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

for (const [name, setup] of Object.entries(setups)) {
  test.skipIf(cc.skip)(cc.name(`at rest it is what the reference is: ${name}`), async () => {
    const ours = await outsideOfPod(pause, setup);
    expect(ours).toEqual(await outsideOfPod(reference, setup));
    expect(ours.status).toContain(CAUGHT);
  });
}

test.skipIf(cc.skip)(cc.name("the signal mask is the inherited one"), async () => {
  const masks: string[] = [];
  for (const executable of [pause, reference]) {
    // python3 would do too; env of coreutils is on every Debian.
    const child = Bun.spawn(["env", "--block-signal=HUP,USR1,CHLD", executable], { stderr: "ignore" });
    await until(
      "handlers",
      () => status(child.pid, "SigCgt") === CAUGHT && status(child.pid, "State").startsWith("S"),
    );
    masks.push(status(child.pid, "SigBlk"));
    child.kill("SIGKILL");
  }
  expect(masks).toEqual(["0000000000010201", "0000000000010201"]);
});

/** How often a process gave up the processor by itself. */
const switches = (pid: number) => Number(status(pid, "voluntary_ctxt_switches"));

test("a child that is stopped and continued does not wake PID 1 (SA_NOCLDSTOP)", async () => {
  await using pod = await Pod.resting(pause);
  const shell = Bun.spawn(pod.inside("sh", "-c", "sleep infinity & exec true"), { stdout: "ignore" });
  await shell.exited;
  await until("an orphan", () => childrenOf(pod.pid).length === 1);
  await until("rest", () => resting(pod.pid));
  const [orphan] = childrenOf(pod.pid);
  if (orphan === undefined) throw new Error("no orphan");
  const before = switches(pod.pid);
  for (let round = 0; round < 20; round++) {
    process.kill(orphan, "SIGSTOP");
    await until("stopped", () => status(orphan, "State").startsWith("T"));
    process.kill(orphan, "SIGCONT");
    await until("continued", () => !status(orphan, "State").startsWith("T"));
  }
  expect(switches(pod.pid)).toBe(before);
  // That it would show: the orphan's death does wake it.
  process.kill(orphan, "SIGKILL");
  await until("reaped", () => childrenOf(pod.pid).length === 0);
  expect(switches(pod.pid)).toBeGreaterThan(before);
  expect(proc(orphan, "status")).toBe("");
});
