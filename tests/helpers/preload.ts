/**
 * What bunfig.toml has Bun do before the tests: every test has five minutes, and a run ends with one line for all the
 * packages that were missing.
 */
import { afterAll, setDefaultTimeout } from "bun:test";
import { readFileSync } from "node:fs";
import { plugin } from "bun";
import { missingPackages } from "./tools.ts";

/** Milliseconds. A busy machine is no failure. */
const TIMEOUT = 300_000;
/** process.argv lacks Bun's own options. */
const isAskedFor = readFileSync("/proc/self/cmdline", "latin1").includes("\0--timeout");

// bunfig.toml has no timeout, and Bun goes back to its own 5 seconds at each file: so it is set when a file is looked for.
if (!isAskedFor)
  plugin({
    name: "timeout",
    setup(build) {
      build.onResolve({ filter: /\.test\.ts$/ }, () => {
        setDefaultTimeout(TIMEOUT);
        return undefined;
      });
    },
  });

afterAll(() => {
  if (missingPackages.size > 0)
    console.error(
      `\nSome tests were skipped. For all: apt-get install ${[...missingPackages].toSorted().join(" ")}`,
    );
});
