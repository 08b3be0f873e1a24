/**
 * The arm64 executable under qemu-user: every instruction of the routines is decoded by something that is not ours.
 */
import { beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { version } from "../../package.json" with { type: "json" };
import { expectTerminates } from "../helpers/expect.ts";
import { observable, Pod } from "../helpers/pod.ts";
import { childrenOf, must, output, proc, until } from "../helpers/process.ts";
import { dist, root } from "../helpers/programs.ts";
import { sleepsInPause } from "../helpers/rest.ts";
import { missing } from "../helpers/tools.ts";

const [LIBRARIES, brings] =
  process.arch === "arm64" ? ["/", "libc6"] : ["/usr/aarch64-linux-gnu", "libc6-arm64-cross"];
const how = missing({ "qemu-aarch64-static": "qemu-user-static", [LIBRARIES]: brings });
const executable = join(dist, "pause-arm64");
const qemu = ["qemu-aarch64-static", "-L", LIBRARIES, executable];

describe.skipIf(how !== "")(`arm64${how && ` (skipped: ${how})`}`, () => {
  beforeAll(() => {
    must(
      "npm",
      "--prefix",
      root,
      "run",
      "-s",
      "build:hosted",
      "--",
      "--target=bun-linux-arm64",
      "--outfile",
      executable,
    );
  });

  test("prints the version", () => {
    expect(output([...qemu, "-v"])).toMatchObject({
      stdout: `init.ts ${version}\n`,
      stderr: "",
      exitCode: 0,
    });
  });

  test("warns where it is not PID 1", async () => {
    const process = Bun.spawn(observable(...qemu), { stderr: "pipe" });
    await until("pause", () => sleepsInPause(process.pid));
    process.kill("SIGINT");
    expect(await new Response(process.stderr).text()).toBe(
      "Warning: pause should be the first process\nShutting down, got signal: Interrupt\n",
    );
    expect(await process.exited).toBe(0);
  });

  test("at rest no system calls are left but those of its signals", async () => {
    const file = join(dist, "arm64.strace");
    writeFileSync(file, "");
    const trace = ["qemu-aarch64-static", "-strace", ...qemu.slice(1)];
    const process = Bun.spawn(trace, { stdio: ["ignore", "ignore", Bun.file(file)] });
    const atRest = () => /^\d+ ppoll.*/ms.exec(readFileSync(file, "latin1"))?.[0] ?? "";
    await until("ppoll", () => atRest() !== "");
    process.kill("SIGCHLD");
    await until("the handler's end", () => atRest().includes("rt_sigreturn"));
    process.kill("SIGTERM");
    await process.exited;
    const names = [...atRest().matchAll(/^\d+ (\w+)\(/gm)].map(([, name]) => name ?? "");
    expect([...new Set(names)].toSorted()).toEqual(["exit_group", "ppoll", "rt_sigreturn", "wait4", "write"]);
  });

  test("as PID 1 it reaps every orphan and ends on SIGTERM", async () => {
    await using pod = await Pod.start(qemu);
    await until("pause", () => sleepsInPause(pod.pid));
    expect(pod.exec("sh", "-c", 'for i in $(seq 50); do sh -c "sleep 0.01 &"; done').exitCode).toBe(0);
    // What qemu itself has mapped stays; what it mapped for the executable does not.
    expect(proc(pod.pid, "maps")).not.toContain(executable);
    await until("no child", () => childrenOf(pod.pid).length === 0 && pod.others().length === 0);
    await expectTerminates(pod);
  });
});
