/**
 * Pods: real PID namespaces with a program as their PID 1, and what /proc says of them.
 */
import { readFileSync } from "node:fs";

/** Runs a command to its end. Its outputs are text; latin1, so that every byte is a character. */
export function output(
  command: readonly string[],
  options: { cwd?: string; env?: Record<string, string> } = {},
) {
  const { stdout, stderr, exitCode, signalCode } = Bun.spawnSync([...command], {
    stdin: "ignore",
    ...options,
  });
  return {
    stdout: stdout.toString("latin1"),
    stderr: stderr.toString("latin1"),
    exitCode,
    signalCode: signalCode ?? null,
  };
}

/** As `output`, for a command that has to succeed; returns its standard output. */
export function must(...command: readonly string[]): string {
  const { stdout, stderr, exitCode } = output(command);
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: exit code ${exitCode}\n${stderr}`);
  return stdout;
}

/** Waits until a condition holds. */
export async function until(what: string, condition: () => boolean, seconds = 60): Promise<void> {
  const end = performance.now() + seconds * 1000;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`${what}: not within ${seconds} s`);
    await Bun.sleep(1);
  }
}

/** A file of /proc/PID, or "" if the process is gone. */
export function proc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1");
  } catch {
    return "";
  }
}

/** A field of /proc/PID/status, "" if the process is gone. */
export const status = (pid: number, field: string): string =>
  new RegExp(`^${field}:\\s*(.*)$`, "m").exec(proc(pid, "status"))?.[1] ?? "";

export const childrenOf = (pid: number): number[] =>
  proc(pid, `task/${pid}/children`).split(" ").filter(Boolean).map(Number);

/** The signals that pause.c catches, as SigCgt shows them: INT, TERM, CHLD. */
export const CAUGHT = "0000000000014002";

/** At rest: the handlers are in place, no signal waits, and the process sleeps in pause(2) without its start's mask. */
export const resting = (pid: number): boolean =>
  status(pid, "SigCgt").endsWith("14002") &&
  status(pid, "SigBlk") === "0000000000000000" &&
  status(pid, "ShdPnd") === "0000000000000000" &&
  status(pid, "State").startsWith("S");

/** Waits for the resting state. */
export const rest = (pid: number): Promise<void> => until(`${pid} at rest`, () => resting(pid));

/** A new user namespace gives root's rights over a PID namespace to whoever is not root. */
const asRoot = process.getuid?.() === 0 ? [] : ["--user", "--map-root-user"];

/**
 * The command line that runs a command where we may look into it: who is not root may not look into a process that is
 * not dumpable, but may into all of a user namespace that he made.
 */
export const observable = (...command: readonly string[]): string[] =>
  asRoot.length === 0 ? [...command] : ["unshare", ...asRoot, ...command];

/** The command line that runs a command as PID 1 of a new PID namespace with its own /proc. */
export const inNewNamespace = (...command: readonly string[]): string[] => [
  "unshare",
  ...asRoot,
  ...["--pid", "--fork", "--kill-child", "--mount-proc"],
  ...command,
];

/** A new PID namespace, with its own /proc, and a program as its PID 1. */
export class Pod implements AsyncDisposable {
  /** PID 1, as this namespace sees it. */
  readonly pid: number;
  readonly #unshare: Bun.Subprocess<"ignore", "pipe", "pipe">;

  private constructor(pid: number, unshare: Bun.Subprocess<"ignore", "pipe", "pipe">) {
    this.pid = pid;
    this.#unshare = unshare;
  }

  /** Starts it, and waits for nothing but its PID 1. */
  static async start(command: readonly string[]): Promise<Pod> {
    // An interrupted test or benchmark leaves none behind.
    const unshare = Bun.spawn(["setpriv", "--pdeathsig", "KILL", ...inNewNamespace(...command)], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    let pid: number | undefined;
    await until("PID 1 of a new namespace", () => {
      if (unshare.exitCode !== null || unshare.signalCode !== null) return true;
      pid = childrenOf(unshare.pid)[0];
      return (
        pid !== undefined && status(pid, "NSpid").endsWith("\t1") && !proc(pid, "comm").startsWith("unshare")
      );
    });
    if (pid === undefined) throw new Error(await new Response(unshare.stderr).text());
    return new Pod(pid, unshare);
  }

  /** Starts it and waits until PID 1 rests. */
  static async resting(...command: readonly string[]): Promise<Pod> {
    const pod = await Pod.start(command);
    try {
      await rest(pod.pid);
    } catch (error) {
      await pod[Symbol.asyncDispose]();
      throw error;
    }
    return pod;
  }

  /** The command line that runs a command inside. */
  inside(...command: readonly string[]): string[] {
    const user = asRoot.length > 0 ? ["--user", "--preserve-credentials"] : [];
    return ["nsenter", "--target", String(this.pid), ...user, "--pid", "--mount", "--", ...command];
  }

  /** Runs a command inside, to its end. */
  exec(...command: readonly string[]) {
    return output(this.inside(...command));
  }

  /** The other processes of the namespace, by their state: Z is a zombie. */
  others(): string[] {
    // Only the kernel's threads and other namespaces' processes have no entry in the namespace's own /proc.
    const listing = this.exec("sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null").stdout;
    const states = [...listing.matchAll(/^(\d+) \((.*)\) (\S) (\d+)/gm)];
    return states.flatMap(([, pid, name, state]) =>
      pid === "1" || name === "sh" || name === "cat" ? [] : [state ?? ""],
    );
  }

  /** What PID 1 wrote and how it ended, after this signal if one is given. */
  async end(signal?: NodeJS.Signals) {
    if (signal) process.kill(this.pid, signal);
    const stdout = await new Response(this.#unshare.stdout).text();
    const stderr = await new Response(this.#unshare.stderr).text();
    const exitCode = await this.#unshare.exited;
    return { stdout, stderr, exitCode, signalCode: this.#unshare.signalCode };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#unshare.kill("SIGKILL");
    if (proc(this.pid, "status") !== "") process.kill(this.pid, "SIGKILL");
    await this.#unshare.exited;
  }
}
