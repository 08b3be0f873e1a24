/**
 * Edits of init.ts, built both ways with the commands of package.json, and what the executables then do.
 */
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { scripts } from "../../package.json" with { type: "json" };
import { WARNING } from "./expect.ts";
import { outside, Pod } from "./pod.ts";
import { childrenOf, isGone, output, status, until } from "./process.ts";
import { dist, freestanding, hosted, type Program, root } from "./programs.ts";
import { isAtRest, NO_SIGNAL } from "./rest.ts";

/** Replacements, each of a text that is there once. */
export type Changes = readonly (readonly [what: string, by: string])[];

/** A file of the project with these changes. */
export function edited(file: string, changes: Changes): string {
  return changes.reduce(
    (text, [what, by]) => {
      if (text.split(what).length !== 2) throw new Error(`not once in ${file}: ${what}`);
      return text.replace(what, () => by);
    },
    readFileSync(join(root, file), "utf8"),
  );
}

/** A folder in which the commands of package.json build from these files and the rest of the project's. */
export function folderOf(files: Readonly<Record<string, string>>) {
  const path = join(dist, "edits", crypto.randomUUID());
  for (const name of ["ffi", "init.ts", "package.json", "tsconfig.json"])
    cpSync(join(root, name), join(path, name), { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true }) };
}

/** Runs one of the build commands of package.json there, without what Bun says of a success. */
export function build(folder: string, command: "build:hosted" | "build:freestanding") {
  const path = `${join(root, "node_modules/.bin")}:${process.env.PATH}`;
  const done = output(["sh", "-c", scripts[command]], {
    cwd: folder,
    env: { ...process.env, PATH: path } as Record<string, string>,
  });
  return done.exitCode === 0 ? { exitCode: 0 } : done;
}

/** Both programs of a folder. */
export function programsOf(folder: string): Program[] {
  return [hosted, freestanding].map((program) => ({
    ...program,
    executable: program.executable.replace(dist, join(folder, "dist")),
  }));
}

/** What is done with a program. */
export interface Run {
  readonly args?: readonly string[];
  readonly isPid1?: boolean;
  /** The signals that it gets, each when it is at rest; "orphan": one that dies then. */
  readonly events?: readonly (NodeJS.Signals | number | "orphan")[];
  /** What it catches and ignores at rest. */
  readonly catches?: readonly number[];
  /** What it catches after the first event, if that is not the same. */
  readonly catchesThen?: readonly number[];
  readonly ignores?: readonly number[];
  /** Its standard output. */
  readonly prints?: string;
  /** Its standard error, besides the warning of one that is not PID 1. */
  readonly says?: string;
  /** Whether it ends before the line that warns. */
  readonly isEarly?: boolean;
  /** Its exit code, or the signal that ends it; undefined: it stays. */
  readonly ends?: number | NodeJS.Signals;
}

/** A set of signals, as /proc/PID/status shows it. */
const setOf = (signals: readonly number[]): string =>
  signals
    .reduce((set, signo) => set | (1n << BigInt(signo - 1)), 0n)
    .toString(16)
    .padStart(NO_SIGNAL.length, "0");

/** How a program ends, or what it is like when all has happened. */
export async function outcome(program: Program, run: Run) {
  const { args = [], isPid1 = false, events = [], catches = [2, 15, 17], catchesThen = catches } = run;
  const command = [program.executable, ...args];
  await using subject = isPid1 ? await Pod.start(command) : outside(command);
  const { pid } = subject;
  const endsOrRests = (caught: string) =>
    until(`${program.name} ends or rests`, () => isGone(pid) || isAtRest(pid, program, { caught }), subject);
  await endsOrRests(setOf(catches));
  for (const event of events) {
    if (isGone(pid)) break;
    if (event !== "orphan") process.kill(pid, event);
    else if (subject instanceof Pod) await orphanDies(subject);
    else throw new Error("only PID 1 has orphans");
    await endsOrRests(setOf(catchesThen));
  }
  const stays = !isGone(pid);
  const ignored = stays ? status(pid, "SigIgn") : undefined;
  const { stdout, stderr, exitCode, signalCode } = await subject.end(stays ? "SIGKILL" : undefined);
  // unshare complains that its child was killed.
  const says = stderr.replace(/^unshare: .*\n/m, "");
  return { stdout, stderr: says, ignored, ends: stays ? undefined : (signalCode ?? exitCode) };
}

/** A process whose parent has left it dies, and PID 1 reaps it. */
async function orphanDies(pod: Pod): Promise<void> {
  pod.exec("sh", "-c", "sleep infinity >/dev/null 2>&1 &");
  await until("an orphan", () => childrenOf(pod.pid).length === 1, pod);
  for (const orphan of childrenOf(pod.pid)) process.kill(orphan, "SIGKILL");
  await until("reaped", () => childrenOf(pod.pid).length === 0, pod);
}

/** What `outcome` has to be. */
export function expected({ isPid1, ignores = [], prints = "", says = "", isEarly, ends }: Run) {
  return {
    stdout: prints,
    stderr: (isPid1 || isEarly ? "" : WARNING) + says,
    ignored: ends === undefined ? setOf(ignores) : undefined,
    ends,
  };
}
