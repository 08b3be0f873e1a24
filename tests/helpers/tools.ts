/**
 * The tools that a test needs, and Debian's packages for them.
 */
import { existsSync } from "node:fs";

/** Debian's packages that a test, or the bench, did without. */
export const missingPackages = new Set<string>();

/**
 * Says which of these tools, each with Debian's package for it, are missing: "" or the command that gets them.
 *
 * @throws in CI, where nothing is skipped.
 */
export function missing(tools: Record<string, string>): string {
  const packages = Object.entries(tools).filter(([tool]) => Bun.which(tool) === null && !existsSync(tool));
  if (packages.length === 0) return "";
  const names = new Set(packages.flatMap(([, name]) => name.split(" ")));
  for (const name of names) missingPackages.add(name);
  const how = `apt-get install ${[...names].join(" ")}`;
  if (process.env.CI) throw new Error(`missing in CI: ${how}`);
  return how;
}

/** Tools with their packages, or what says why there are none, as `missing` does. */
export type Needed = Record<string, string> | (() => string);

/**
 * Fetches what comes from elsewhere; says why that cannot be had, "" if it can. There may be no network, and packages of
 * a suite that moves may not fit together today.
 *
 * @throws in CI, where nothing is skipped.
 */
export function unobtainable(fetch: () => unknown): string {
  try {
    fetch();
    return "";
  } catch (error) {
    if (process.env.CI) throw error;
    const lines = (error instanceof Error ? error.message : String(error)).trimEnd().split("\n");
    return `not to be had now: ${lines.at(-1)}`;
  }
}

/** Whether to skip, and a test name that says why. */
export const needs = (...needed: readonly Needed[]) => {
  const all = needed.map((tools) => (typeof tools === "function" ? tools() : missing(tools)));
  const how = all.filter((one) => one !== "").join("; ");
  return { skip: how !== "", name: (name: string) => (how === "" ? name : `${name} (skipped: ${how})`) };
};

export const CC = { cc: "gcc libc6-dev" };
