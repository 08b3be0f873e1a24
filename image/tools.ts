/**
 * How the image's builder calls other programs, and how it ends when it cannot go on.
 */
import { existsSync } from "node:fs";
import { root } from "./contents.ts";

/** Ends the build with one line. */
export function fail(why: string): never {
  process.stderr.write(`image: ${why}\n`);
  process.exit(1);
}

/** Ends the build if one of these, a command or a file, is missing. */
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
