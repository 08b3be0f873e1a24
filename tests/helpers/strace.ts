/**
 * strace: which system calls a program makes, and what it does where one of them is refused or met by a signal.
 */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { outside } from "./pod.ts";
import { type Ending, isGone, until } from "./process.ts";
import { dist } from "./programs.ts";
import { sleepsInPause } from "./rest.ts";

export const STRACE = { strace: "strace" };

/** Where a program rests: qemu-user makes rt_sigsuspend of its guest's pause. Not each machine has pause itself. */
const RESTS = "?pause,ppoll,rt_sigsuspend";
const RESTING = /^(\d+) +(?:pause|ppoll|rt_sigsuspend)\(/m;

/** With -D the process that starts becomes the command, and strace, its grandchild, ends with it. Options may come first. */
const strace = (file: string, calls: string, what: string | undefined, command: readonly string[]) => [
  ...["strace", "-D", "-qq", "-e", "signal=none", "-o", file, "-e", `trace=${calls},${RESTS}`],
  ...(what === undefined ? [] : ["-e", `inject=${calls}:${what}`]),
  ...command,
];

/** The command line that runs a command with this done to one of its system calls, as strace(1) has it in `inject`. */
export const injectCommand = (call: string, what: string, ...command: readonly string[]): string[] =>
  strace("/dev/null", call, what, command);

/** What a command writes with this done to one of its system calls, and how it ends. If it comes to rest, SIGKILL ends it. */
export async function runInjected(
  call: string,
  what: string,
  ...command: readonly string[]
): Promise<Ending> {
  await using child = outside(injectCommand(call, what, ...command));
  await until("its end", () => isGone(child.pid) || sleepsInPause(child.pid), child);
  return await child.end("SIGKILL");
}

/** Starts, as `outside` does, a command that writes its system calls to a file, each behind the ID of its thread. */
export function following(command: (file: string) => readonly string[]) {
  const file = join(dist, `${crypto.randomUUID()}.strace`);
  const child = outside(command(file));
  const text = () => (existsSync(file) ? readFileSync(file, "latin1") : "");
  return {
    child,
    lines: () => text().trimEnd().split("\n"),
    /** Waits until it rests; the ID of the thread that does. */
    async untilItRests(): Promise<number> {
      await until("pause", () => RESTING.test(text()), child);
      return Number(RESTING.exec(text())?.[1]);
    },
    async [Symbol.asyncDispose]() {
      await child[Symbol.asyncDispose]();
      rmSync(file, { force: true });
    },
  };
}

/** Follows these system calls of a command and its threads, or classes of them; `what` as `injectCommand` has it. */
export const startTraced = (calls: string, command: readonly string[], what?: string) =>
  following((file) => strace(file, calls, what, ["-f", ...command]));

/** The names of a program's system calls: those of its start, and those from its rest on, of a SIGCHLD and a SIGTERM. */
export async function callsOfALife(of: ReturnType<typeof following>) {
  await using trace = of;
  const names = () => trace.lines().flatMap((line) => /^\d+ +(\w+)\(/.exec(line)?.[1] ?? []);
  await trace.untilItRests();
  const start = names().slice(0, -1);
  const rest = () => names().slice(start.length);
  trace.child.kill("SIGCHLD");
  await until("the handler's end", () => rest().some((name) => name.endsWith("sigreturn")), trace.child);
  await trace.child.end("SIGTERM");
  return { start, rest: [...new Set(rest())].toSorted() };
}

/** Runs a command until it rests. Returns the calls that the resting thread made of these system calls, or classes of them. */
export async function traceLines(calls: string, ...command: readonly string[]): Promise<string[]> {
  await using trace = startTraced(calls, command);
  const pid = await trace.untilItRests();
  return trace
    .lines()
    .filter((line) => line.startsWith(`${pid} `) && !RESTING.test(line))
    .map((line) => line.replace(/^\d+ +/, ""));
}

/** The numbers, from 1, of the calls that match: what `when` of strace's `inject` takes. */
export const numbersOf = (calls: readonly string[], like: RegExp): number[] =>
  calls.flatMap((call, index) => (like.test(call) ? [index + 1] : []));

/** Which of its calls of rt_sigaction installs a program's handler: the last, for Bun and qemu have others before. */
export async function handlerOf(signal: string, ...command: readonly string[]): Promise<number> {
  const like = new RegExp(`^rt_sigaction\\(${signal}, \\{sa_handler=0x`);
  const number = numbersOf(await traceLines("rt_sigaction", ...command), like).at(-1);
  if (number === undefined) throw new Error(`${command.join(" ")} installs no handler for ${signal}`);
  return number;
}
