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
  return refusedInCI(`apt-get install ${[...names].join(" ")}`);
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
    return `not to be had now: ${lines.findLast((line) => /^(E|error): /i.test(line)) ?? lines.at(-1)}`;
  }
}

/** What only root can do: namespaces, mounts and cgroups of the machine. */
export const ROOT: Needed = () => refusedInCI(process.getuid?.() === 0 ? "" : "run the tests as root");

/** Returns the reason unchanged. In CI it throws it, because CI skips nothing. */
export function refusedInCI(how: string): string {
  if (how !== "" && process.env.CI) throw new Error(`missing in CI: ${how}`);
  return how;
}

/** Why to skip what needs all of these: "" if nothing is missing. What fetches is asked only where all else is there. */
export function lacking(...needed: readonly Needed[]): string {
  const tools = needed.filter((one) => typeof one !== "function");
  const fetches = needed.filter((one) => typeof one === "function");
  return fetches.reduce((how, fetch) => how || fetch(), missing(Object.assign({}, ...tools)));
}

export const CC = { cc: "gcc libc6-dev" };
