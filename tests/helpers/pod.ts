/**
 * Pods: real PID namespaces with a program as their PID 1.
 */
import { childrenOf, endOf, field, output, proc, until } from "./process.ts";
import type { Program } from "./programs.ts";
import { restsOrEnds, type Surroundings, untilAtRest } from "./rest.ts";
import { type Needed, refusedInCI } from "./tools.ts";

/** A new user namespace gives root's rights over a PID namespace to whoever is not root. */
const asRoot = process.getuid?.() === 0 ? [] : ["--user", "--map-root-user"];

/**
 * The command line that runs a command where we may look into it. Only root may look into a process that is not dumpable;
 * other users may in a user namespace of their own, so they run the command in one.
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

/** Namespaces: for PID 1, and for whoever is not root to look into what is not dumpable. */
export const NAMESPACES: Needed = () => {
  const { exitCode, stderr } = output(inNewNamespace("true"));
  return refusedInCI(exitCode === 0 ? "" : `run the tests as root, and not in a container: ${stderr.trim()}`);
};

/** Starts a command that is not PID 1, where we may look into it. It goes with its scope, whatever signals it blocks. */
export function outside(command: readonly string[], env: Record<string, string> = {}) {
  const child = Bun.spawn(observable(...command), {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  // Bun's own sends SIGTERM, which the child may block.
  const value = async () => {
    child.kill("SIGKILL");
    await child.exited;
  };
  return Object.assign(Object.defineProperty(child, Symbol.asyncDispose, { value }), {
    /** What it wrote and how it ended, after this signal if one is given. */
    end(signal?: NodeJS.Signals) {
      if (signal) child.kill(signal);
      return endOf(child);
    },
  });
}

/** What runs a command as the image's user, without any privilege. Who is not root has none anyway. */
export const UNPRIVILEGED =
  process.getuid?.() === 0
    ? "setpriv --reuid 65535 --regid 65535 --clear-groups --bounding-set=-all --no-new-privs --pdeathsig KILL".split(
        " ",
      )
    : [];

/** A new PID namespace, with its own /proc, and a program as its PID 1. */
export class Pod implements AsyncDisposable {
  /** PID 1, as this namespace sees it. */
  readonly pid: number;
  /** What PID 1 writes there. */
  readonly stderr: ReadableStream<Uint8Array>;
  readonly #unshare: Bun.Subprocess<"ignore", "pipe", "pipe">;

  private constructor(pid: number, unshare: Bun.Subprocess<"ignore", "pipe", "pipe">) {
    this.pid = pid;
    this.stderr = unshare.stderr;
    this.#unshare = unshare;
  }

  /**
   * Starts it, and waits for nothing but its PID 1.
   *
   * @throws what unshare says, if it makes none.
   */
  static async start(command: readonly string[]): Promise<Pod> {
    // An interrupted test or benchmark leaves none behind.
    const unshare = Bun.spawn(["setpriv", "--pdeathsig", "KILL", ...inNewNamespace(...command)], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    let pid: number | undefined;
    await until(
      "PID 1 of a new namespace",
      () => {
        for (const child of childrenOf(unshare.pid)) {
          const now = proc(child, "status");
          // A child that is still unshare may yet fail to mount /proc.
          if (field(now, "NSpid").endsWith("\t1") && field(now, "Name") !== "unshare") pid = child;
        }
        return pid !== undefined || unshare.exitCode !== null || unshare.signalCode !== null;
      },
      unshare,
    );
    if (pid === undefined)
      throw new Error((await new Response(unshare.stderr).text()) || "PID 1 ended at once");
    return new Pod(pid, unshare);
  }

  /** Starts a program, by way of another command if one is given, and waits until it is at rest. */
  static async atRest(
    program: Program,
    by: readonly string[] = [],
    surroundings: Surroundings = {},
  ): Promise<Pod> {
    const pod = await Pod.start([...by, program.executable]);
    try {
      await untilAtRest(pod, program, surroundings);
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

  /**
   * The other processes of the namespace, by their state: Z is a zombie.
   *
   * @throws if it cannot be entered any more.
   */
  others(): string[] {
    // A /proc of its own shows the namespace's processes and no others, whatever PID 1 has there.
    const list = "mount -t proc proc /proc && cat /proc/[0-9]*/stat 2>/dev/null";
    const { stdout: listing, stderr } = this.exec("unshare", "--mount", "sh", "-c", list);
    if (!/^1 \(/m.test(listing)) throw new Error(`no PID 1 to look at: ${stderr}`);
    const states = [...listing.matchAll(/^(\d+) \((.*)\) (\S) (\d+)/gm)];
    return states.flatMap(([, pid, name, state]) =>
      pid === "1" || name === "sh" || name === "cat" ? [] : [state ?? ""],
    );
  }

  /** Waits until PID 1 has reaped all others. */
  untilAlone(): Promise<void> {
    return until("PID 1 alone", () => childrenOf(this.pid).length === 0 && this.others().length === 0, this);
  }

  /**
   * Waits until PID 1 rests or ends. If it rests, it has to reap five orphans, and SIGTERM ends it. Returns whether it
   * rested, what it wrote and how it ended.
   */
  async outcome(program: Program, surroundings?: Surroundings) {
    const rests = await restsOrEnds(this, program, surroundings);
    if (rests) {
      this.exec("sh", "-c", "for i in 1 2 3 4 5; do sleep 0.01 & done");
      await this.untilAlone();
    }
    return { rests, ...(await this.end(rests ? "SIGTERM" : undefined)) };
  }

  /** What PID 1 wrote and how it ended, after this signal if one is given. */
  end(signal?: NodeJS.Signals) {
    if (signal) process.kill(this.pid, signal);
    return endOf(this.#unshare);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Only if it is still unshare's child: another process may have its number by now.
    if (childrenOf(this.#unshare.pid).includes(this.pid)) process.kill(this.pid, "SIGKILL");
    this.#unshare.kill("SIGKILL");
    await this.#unshare.exited;
  }
}
