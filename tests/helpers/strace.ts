/**
 * strace: which system calls a program makes, and one of them refused, delayed or met by a signal.
 */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { childrenOf, until } from "./process.ts";
import { dist } from "./programs.ts";
import { PAUSE } from "./rest.ts";

export const STRACE = { strace: "strace" };

/** Where a program rests: under qemu-user too, which makes rt_sigsuspend of its guest's pause. */
const RESTS = new RegExp(`^(\\d+ +)?(${PAUSE}|rt_sigsuspend)\\(`, "m");

/** What a program does: its calls of these system calls, or classes of them, until it pauses; each is a line. */
export async function traced(calls: string, ...command: readonly string[]): Promise<string[]> {
  const file = join(dist, `${crypto.randomUUID()}.strace`);
  const trace = ["-qq", "-o", file, "-e", `trace=${calls},${PAUSE},rt_sigsuspend`];
  await using tracer = Bun.spawn(["strace", ...trace, ...command], { stdio: ["ignore", "ignore", "ignore"] });
  const text = () => (existsSync(file) ? readFileSync(file, "latin1") : "");
  try {
    await until("pause", () => RESTS.test(text()), tracer);
    for (const pid of childrenOf(tracer.pid)) process.kill(pid, "SIGTERM");
    await tracer.exited;
    return text()
      .split("\n")
      .filter((line) => !RESTS.test(line));
  } finally {
    rmSync(file, { force: true });
  }
}

/** The command line that runs a command with this done to one of its system calls, as strace(1) has it in `inject`. */
export const injecting = (call: string, what: string, ...command: readonly string[]): string[] => [
  ...["strace", "-qq", "-o", "/dev/null", "-e", `trace=${call}`, "-e", `inject=${call}:${what}`],
  ...command,
];
