/**
 * Commands, and what /proc says of a process.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** What a process wrote and how it ended. */
export interface Ending {
  stdout: string;
  stderr: string;
  exitCode: number | null;
  signalCode: Bun.Subprocess["signalCode"];
}

/**
 * Runs a command to its end, which SIGKILL is after five minutes: no limit of a test can end what this waits for. Its
 * outputs are text; latin1, so that every byte is a character.
 */
export function output(
  command: readonly string[],
  options: { cwd?: string; env?: Record<string, string>; timeout?: number } = {},
): Ending {
  const [executable = ""] = command;
  if (Bun.which(executable) === null)
    return { stdout: "", stderr: `${executable}: not found\n`, exitCode: 127, signalCode: null };
  const { stdout, stderr, exitCode, signalCode } = Bun.spawnSync([...command], {
    stdin: "ignore",
    timeout: 300_000,
    killSignal: "SIGKILL",
    ...options,
  });
  return {
    stdout: stdout.toString("latin1"),
    stderr: stderr.toString("latin1"),
    exitCode,
    signalCode: signalCode ?? null,
  };
}

/** As `output`, for a command that has to succeed, such as a download, in half an hour; returns its standard output. */
export function must(...command: readonly string[]): string {
  const { stdout, stderr, exitCode } = output(command, { timeout: 1_800_000 });
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: exit code ${exitCode}\n${stderr}`);
  return stdout;
}

/** What a process writes and how it ends, as `output` has it. */
export async function endOf(child: Bun.Subprocess<"ignore", "pipe", "pipe">): Promise<Ending> {
  const stdout = await new Response(child.stdout).text();
  const stderr = await new Response(child.stderr).text();
  await child.exited;
  return { stdout, stderr, exitCode: child.exitCode, signalCode: child.signalCode };
}

/** A new folder, which goes with its scope. */
export function temporary(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), "pause-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
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
export const status = (pid: number, name: string): string => field(proc(pid, "status"), name);

/** A field of what /proc/PID/status held. */
export const field = (text: string, name: string): string =>
  new RegExp(`^${name}:\\s*(.*)$`, "m").exec(text)?.[1] ?? "";

/** Whether a process has ended. */
export const isGone = (pid: number): boolean => /^[ZX]|^$/.test(status(pid, "State"));

export const childrenOf = (pid: number): number[] =>
  proc(pid, `task/${pid}/children`).split(" ").filter(Boolean).map(Number);

/** The process that a condition is about: a subprocess, a pod, or only a process ID. */
export interface Subject {
  readonly pid: number;
  readonly stderr?: ReadableStream<Uint8Array> | number | undefined;
}

const SECONDS = 60;

/**
 * Waits until a condition holds.
 *
 * @throws with all that is known of the process, so that a failure far away can be understood.
 */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  subject?: Subject,
): Promise<void> {
  const end = performance.now() + SECONDS * 1000;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`${what}: not within ${SECONDS} s${await report(subject)}`);
    await Bun.sleep(1);
  }
}

/** What is known of a process, for a message. */
export async function report(subject?: Subject): Promise<string> {
  if (subject === undefined) return "";
  const { pid, stderr } = subject;
  const files = ["cmdline", "status", "wchan", "maps"].map(
    (name) => `/proc/${pid}/${name}:\n${proc(pid, name).replaceAll("\0", " ").slice(0, 8000)}`,
  );
  const written = stderr instanceof ReadableStream && !stderr.locked ? await heldBy(stderr) : "unknown";
  return [`, process ${pid}`, ...files, `standard error: ${written}`].join("\n");
}

/** What can be read from a stream now; it need not have an end. */
async function heldBy(stream: ReadableStream<Uint8Array>): Promise<string> {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const chunk = await Promise.race([reader.read(), Bun.sleep(100)]);
    if (!chunk?.value) return text;
    text += decoder.decode(chunk.value, { stream: true });
  }
}
