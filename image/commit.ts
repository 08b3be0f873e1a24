/**
 * Which commit the images are of, and of when: what is the same wherever they are built.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { root } from "./contents.ts";
import { fail, need, run } from "./tools.ts";

export interface Commit {
  /** Its hash, with "-dirty" where something differs from it; undefined where there is no repository. */
  revision: string | undefined;
  /** In seconds since 1970. */
  time: number;
}

export const git = (...args: readonly string[]): string => {
  need(["git"], "apt-get install git, dnf install git …");
  return run(["git", ...args]).trim();
};

/** SOURCE_DATE_EPOCH (reproducible-builds.org's specification) goes before the commit's own time. */
function epoch(): number | undefined {
  const text = process.env.SOURCE_DATE_EPOCH;
  if (text === undefined || text === "") return undefined;
  if (!/^\d{1,11}$/.test(text)) fail(`SOURCE_DATE_EPOCH is "${text}": it takes seconds since 1970`);
  return Number(text);
}

/** What is checked out here. Without a repository, as in an archive of the source, it is of 1970. */
export function commit(): Commit {
  const time = epoch();
  if (!existsSync(join(root, ".git"))) return { revision: undefined, time: time ?? 0 };
  const dirty = git("--no-optional-locks", "status", "--porcelain") === "" ? "" : "-dirty";
  return {
    revision: git("rev-parse", "HEAD") + dirty,
    time: time ?? Number(git("log", "-1", "--format=%ct")),
  };
}
