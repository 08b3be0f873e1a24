/**
 * The tools that a test needs, and Debian's packages for them.
 */
import { existsSync } from "node:fs";

/**
 * Says which of these tools, each with Debian's package for it, are missing: "" or the command that gets them.
 *
 * @throws in CI, where nothing is skipped.
 */
export function missing(tools: Record<string, string>): string {
  const packages = Object.entries(tools).filter(([tool]) => Bun.which(tool) === null && !existsSync(tool));
  if (packages.length === 0) return "";
  const how = `apt-get install ${packages.map(([, name]) => name).join(" ")}`;
  if (process.env.CI) throw new Error(`missing in CI: ${how}`);
  return how;
}

/** Tools with their packages, or what says why there are none, as `missing` does. */
export type Needed = Record<string, string> | (() => string);

/** Whether to skip, and a test name that says why. */
export const needs = (...needed: readonly Needed[]) => {
  const all = needed.map((tools) => (typeof tools === "function" ? tools() : missing(tools)));
  const how = all.filter((one) => one !== "").join("; ");
  return { skip: how !== "", name: (name: string) => (how === "" ? name : `${name} (skipped: ${how})`) };
};

export const CC = { cc: "gcc libc6-dev" };
