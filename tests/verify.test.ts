/**
 * examples/verify without a cluster: its arguments, and what it says of a PID 1. A cluster's part in it was tried by hand.
 */
import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { version } from "../package.json" with { type: "json" };
import { Pod } from "./helpers/pod.ts";
import { output } from "./helpers/process.ts";
import { hosted, root } from "./helpers/programs.ts";
import { needs } from "./helpers/tools.ts";

const verify = join(root, "examples/verify");

test("other arguments end it with one line and exit code 2", () => {
  for (const args of [["x"], ["--help"], ["--context"], ["--context="], ["--namespace", "a", "--node"]]) {
    const { stdout, stderr, exitCode } = output(["sh", verify, ...args]);
    expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 2 });
    expect(stderr).toBe("usage: sh examples/verify [--context NAME] [--namespace NAME]\n");
  }
});

test("without kubectl it says so", () => {
  for (const args of [[], ["--context", "a", "--namespace=b"], ["--context=a b", "--namespace", "c"]])
    expect(output(["/bin/sh", verify, ...args], { env: { PATH: "/nonexistent" } })).toEqual({
      stdout: "",
      stderr: "kubectl is not installed: this needs it, and nothing else.\n",
      exitCode: 1,
      signalCode: null,
    });
});

// What it runs in the pod's shell, here in the shell that busybox's image has.
const busybox = needs({ "/bin/busybox": "busybox-static" });
const examination = /^examination='\n(.*?)^'$/ms.exec(readFileSync(verify, "utf8"))?.[1] ?? "";

async function examine(starting: Promise<Pod>) {
  const applets = mkdtempSync(join(tmpdir(), "pause-verify-"));
  try {
    output(["/bin/busybox", "--install", "-s", applets]);
    await using pod = await starting;
    const shell = (script: string) =>
      pod.inside("env", `PATH=${applets}`, "/bin/busybox", "sh", "-c", script);
    // What the probe that times out leaves, again and again.
    Bun.spawn(shell("while :; do (sleep 20 &); sleep 3; done"), { stdio: ["ignore", "ignore", "ignore"] });
    return output(shell(examination));
  } finally {
    rmSync(applets, { recursive: true });
  }
}

test.skipIf(busybox.skip)(busybox.name("of /pause it says that it is ours and reaps"), async () => {
  const { stdout, exitCode } = await examine(Pod.atRest(hosted));
  expect(stdout).toContain(`ok    PID 1 is ours: init.ts ${version}, the hosted build (`);
  expect(stdout.match(/^ok {4}/gm)?.length).toBe(5);
  expect(stdout).not.toContain("FAIL");
  expect(exitCode).toBe(0);
});

test.skipIf(busybox.skip)(
  busybox.name("of another PID 1 it says what is wrong"),
  async () => {
    const { stdout, exitCode } = await examine(Pod.start(["sleep", "infinity"]));
    expect(stdout).toContain("FAIL  PID 1 is not ours, but sleep infinity (");
    expect(stdout).toContain("but catches 0000000000000000.");
    expect(stdout).toMatch(
      /Of 300 orphans 300 became its children. After they died at once 30. zombies are left./,
    );
    expect(stdout.match(/^FAIL {2}/gm)?.length).toBe(5);
    expect(exitCode).toBe(1);
  },
  120_000,
);
