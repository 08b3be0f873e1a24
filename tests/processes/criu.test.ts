/**
 * CRIU: what rests can be dumped, and restored in another process. Of sid, because Debian 12's does not run on a later
 * kernel; on this machine, because user-mode-linux has no kcmp(2).
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync } from "node:fs";
import { basename, join, relative } from "node:path";
import { DebianMachine, machineNeeds } from "../helpers/debian.ts";
import { describeEach, MESSAGE, needing } from "../helpers/expect.ts";
import { isGone, until } from "../helpers/process.ts";
import { dist } from "../helpers/programs.ts";
import { untilAtRest } from "../helpers/rest.ts";

needing(...machineNeeds("sid")).describe("CRIU", () => {
  let machine: DebianMachine;
  beforeAll(async () => {
    machine = await DebianMachine.start("sid");
  });
  afterAll(() => machine?.[Symbol.asyncDispose]());

  describeEach((program) =>
    test("dumped and restored it rests as before, and ends", async () => {
      const folder = mkdtempSync(join(machine.folder, "criu-"));
      const there = `/mnt/${basename(folder)}`;
      const executable = `/srv/${relative(dist, program.executable)}`;
      // In a session of its own, with nothing from outside of this mount namespace.
      const script = 'cd / && exec busybox setsid "$0" </dev/null >/dev/null 2>"$1/stderr"';
      const first = Bun.spawn(machine.inside("busybox", "sh", "-c", script, executable, there), {
        stdio: ["ignore", "ignore", "ignore"],
      });
      const { pid } = first;
      try {
        await untilAtRest({ pid }, program);
        machine.must("criu", "dump", "--shell-job", "--images-dir", there, "--tree", String(pid));
        await first.exited;
        expect(isGone(pid)).toBe(true);
        machine.must("criu", "restore", "--shell-job", "--restore-detached", "--images-dir", there);
        await untilAtRest({ pid }, program);
        process.kill(pid, "SIGTERM");
        await until("its end", () => isGone(pid), { pid });
        expect(readFileSync(join(folder, "stderr"), "utf8")).toEndWith(MESSAGE);
      } finally {
        if (!isGone(pid)) process.kill(pid, "SIGKILL");
      }
    }),
  );
});
