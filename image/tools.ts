/**
 * How the image's builder and the release call other programs, and how they end when they cannot go on.
 */
import { existsSync } from "node:fs";
import { basename } from "node:path";
import { root } from "./contents.ts";

/** Ends the program with one line. */
export function fail(why: string): never {
  process.stderr.write(`${basename(Bun.main, ".ts")}: ${why}\n`);
  process.exit(1);
}

/** Ends the program if one of these, a command or a file, is missing. */
export function need(tools: readonly string[], how: string): void {
  for (const tool of tools)
    if (Bun.which(tool) === null && !existsSync(tool)) fail(`${tool} is missing: ${how}`);
}

/** What the command prints, which has to succeed; what goes wrong it says itself. */
export function run(command: readonly string[], cwd = root): string {
  const { exitCode, stdout } = Bun.spawnSync([...command], { cwd, stderr: "inherit" });
  if (exitCode !== 0) fail(`${command[0]} failed with exit code ${exitCode}`);
  return stdout.toString();
}

/** Says what is done now: some of it takes a while. */
export const say = (text: string): void => void process.stdout.write(`${text}\n`);
