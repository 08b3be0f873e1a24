/**
 * Hostile starts: each leads to the resting state, or to an end with one clear line and a known exit code.
 */
import { describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CC,
  childrenOf,
  needs,
  observable,
  output,
  Pod,
  pause,
  proc,
  reference,
  resting,
  status,
  UNPRIVILEGED,
  until,
} from "./host.ts";

const cc = needs(CC);
const isRoot = process.getuid?.() === 0;
const QUIET = "Warning: pause should be the first process\nShutting down, got signal: Terminated\n";
const unprivileged = UNPRIVILEGED.join(" ");

/** A folder with files that Bun would read, each of which would show itself. */
function plant(): string {
  const folder = mkdtempSync(join(tmpdir(), "pause-planted-"));
  const evil = 'require("node:fs").writeSync(2, "EVIL\\n");';
  writeFileSync(join(folder, "bunfig.toml"), 'preload = ["./evil.ts"]\n[run]\npreload = ["./evil.ts"]\n');
  writeFileSync(join(folder, ".bunfig.toml"), 'preload = ["./evil.ts"]\n');
  writeFileSync(join(folder, ".env"), "BUN_INSPECT=127.0.0.1:0\nBUN_OPTIONS=--preload=./evil.ts\n");
  writeFileSync(join(folder, "package.json"), '{ "name": "x", "main": "evil.ts", "type": "commonjs" }');
  writeFileSync(join(folder, "tsconfig.json"), '{ "compilerOptions": { "paths": { "*": ["./evil.ts"] } } }');
  for (const name of ["evil.ts", "libc.so.6"]) writeFileSync(join(folder, name), evil);
  mkdirSync(join(folder, "node_modules/bun"), { recursive: true });
  writeFileSync(join(folder, "node_modules/bun/index.js"), evil);
  return folder;
}

/** Starts after which it rests, is quiet, and ends with 0 on SIGTERM: what a shell does before `exec`. */
const survived: Record<string, string> = {
  "no environment": "exec env -i",
  "1 MB of environment": `x=$(head -c 100000 /dev/zero | tr '\\0' x); exec env ${Array.from({ length: 10 }, (_, i) => `V${i}=$x`).join(" ")}`,
  "BUN_OPTIONS with a nonsense option": "export BUN_OPTIONS=--nonsense; exec",
  "BUN_OPTIONS=--smol": "export BUN_OPTIONS=--smol; exec",
  "BUN_OPTIONS=--cpu-prof, which starts a thread": "cd $(mktemp -d); export BUN_OPTIONS=--cpu-prof; exec",
  "NODE_OPTIONS and a cache":
    "export NODE_OPTIONS='--require ./evil.ts' BUN_RUNTIME_TRANSPILER_CACHE_PATH=/tmp; exec",
  "files planted in the working directory": "cd $PLANTED; exec",
  "files planted in $HOME": "export HOME=$PLANTED XDG_CONFIG_HOME=$PLANTED; exec",
  "standard input and output closed": "exec <&- >&-; exec",
  "a small stack (256 KiB)": "ulimit -s 256; exec",
  "no limit on the stack": "ulimit -s unlimited; exec",
  "4 GB of address space": "ulimit -v 4000000; exec",
  "5 descriptors": "ulimit -n 5; exec",
  "no locked memory": "ulimit -l 0; exec",
  "files of no size": "ulimit -f 0; exec",
  "core dumps without limit": "ulimit -c unlimited; exec",
};

/** The same, where it takes root to get there. */
const survivedFromRoot: Record<string, string> = {
  "another user without capabilities": `exec ${unprivileged}`,
  "one process at most": `exec ${unprivileged} bash -c 'ulimit -u 1; exec "$@"' bash`,
  "a working directory that it may not read": `d=$(mktemp -d); chmod 700 $d; cd $d; exec ${unprivileged}`,
  // The executable itself may lie below /tmp.
  "no /tmp":
    "exec unshare --mount sh -c 'mount -t tmpfs none /mnt; cp $1 /mnt; mount -t tmpfs -o ro none /tmp; exec /mnt/pause' sh",
  "/proc with hidepid": `exec unshare --mount --pid --fork sh -c 'mount -t proc -o hidepid=2 none /proc; exec ${unprivileged} "$@"' sh`,
};

/** Starts that Bun does not survive, with the exit code and the beginning of what it says: the README lists them. */
const refused: Record<string, [setup: string, exitCode: number, stderr: RegExp]> = {
  "a working directory that is deleted": [
    "d=$(mktemp -d); cd $d; rmdir $d; exec",
    1,
    /^error: The current working directory was deleted.*\n$/,
  ],
  "4 descriptors": ["ulimit -n 4; exec", 1, /error: bun ran out of file descriptors/],
  "a stack of 64 KiB": ["ulimit -s 64; exec", 1, /Bun v/],
  "BUN_JSC_useJIT=0": ["export BUN_JSC_useJIT=0; exec", 1, /^Error: libc cannot be called: .*\n$/],
  "an unknown option of JavaScriptCore": [
    "export BUN_JSC_nonsense=1; exec",
    1,
    /invalid JSC environment variable/,
  ],
};

describe("hostile starts", () => {
  const table = { ...survived, ...(isRoot ? survivedFromRoot : {}) };
  for (const [name, setup] of Object.entries(table)) {
    test(`it rests: ${name}`, async () => {
      const planted = plant();
      const child = Bun.spawn(["bash", "-c", `${setup} "$@"`, "bash", pause], {
        stdio: ["ignore", "pipe", "pipe"],
        env: { ...process.env, PLANTED: planted },
      });
      const descendants = (pid: number): number[] => [pid, ...childrenOf(pid).flatMap(descendants)];
      let pid: number | undefined;
      await until("rest", () => {
        pid = descendants(child.pid).find((one) => proc(one, "comm") === "pause\n" && resting(one));
        return pid !== undefined || child.exitCode !== null;
      });
      if (pid !== undefined) process.kill(pid, "SIGTERM");
      const stderr = await new Response(child.stderr).text();
      expect([stderr.replace(/^Warning.*\n/, ""), await child.exited]).toEqual([
        QUIET.replace(/^Warning.*\n/, ""),
        0,
      ]);
      rmSync(planted, { recursive: true });
    });
  }

  for (const [name, [setup, exitCode, stderr]] of Object.entries(refused)) {
    test(`it ends at once: ${name}`, () => {
      const result = output(["bash", "-c", `${setup} "$@"`, "bash", pause]);
      expect(result).toMatchObject({ exitCode, stdout: "" });
      expect(result.stderr).toMatch(stderr);
    });
  }

  const outputs = { "/dev/full": "2>/dev/full", "a closed descriptor": "2>&-", "a broken pipe": "2> >(:)" };
  for (const [name, redirection] of Object.entries(outputs)) {
    test.skipIf(cc.skip)(cc.name(`standard error is ${name}: it ends as the reference does`), async () => {
      const endings: unknown[] = [];
      for (const executable of [pause, reference]) {
        const child = Bun.spawn(["bash", "-c", `exec ${redirection}; sleep 0.05; exec ${executable}`], {
          stdio: ["ignore", "ignore", "ignore"],
        });
        await until(
          "rest or end",
          () => resting(child.pid) || child.exitCode !== null || child.signalCode !== null,
        );
        child.kill("SIGTERM");
        await child.exited;
        endings.push([child.exitCode, child.signalCode]);
      }
      expect(endings[0]).toEqual(endings[1]);
    });
  }

  test("-v on /dev/full ends with 0, as the reference does", () => {
    for (const executable of [pause, ...(reference ? [reference] : [])])
      expect(output(["bash", "-c", `${executable} -v >/dev/full`]).exitCode).toBe(0);
  });

  test("every signal blocked on entry: it rests with that mask, but for SIGPWR", async () => {
    const child = Bun.spawn(observable("env", "--block-signal", pause), {
      stdio: ["ignore", "ignore", "ignore"],
    });
    await until(
      "rest",
      () => status(child.pid, "SigCgt").endsWith("14002") && proc(child.pid, "wchan") !== "0",
    );
    await until("the mask", () => status(child.pid, "SigBlk") === "fffffffe5ffbfeff");
    child.kill("SIGKILL");
  });

  test("SIGTERM that is pending on entry ends it with 0", async () => {
    // bash blocks nothing: env blocks, the signal is sent while it does, and a second env unblocks after the start.
    const child = Bun.spawn(["env", "--block-signal=TERM", "bash", "-c", `kill -TERM $$; exec ${pause}`], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    // Blocked, it stays pending, as with pause.c.
    await until("rest", () => status(child.pid, "SigCgt").endsWith("14002"));
    expect(status(child.pid, "ShdPnd")).toBe("0000000000004000");
    child.kill("SIGINT");
    expect(await child.exited).toBe(0);
  });

  test("children from before the start are reaped: one that has died, and one that dies later", async () => {
    const child = Bun.spawn(["bash", "-c", `sleep 0 & sleep 0.3 & exec ${pause}`], {
      stdio: ["ignore", "ignore", "ignore"],
    });
    await until("rest", () => resting(child.pid));
    await until("no child", () => childrenOf(child.pid).length === 0);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
  });

  test("a child that died before SIGCHLD was caught is reaped without another one's death", async () => {
    const child = Bun.spawn(["bash", "-c", `sleep 0 & exec ${pause}`], {
      stdio: ["ignore", "ignore", "ignore"],
    });
    await until("rest", () => resting(child.pid));
    await until("no child", () => childrenOf(child.pid).length === 0);
    child.kill("SIGKILL");
  });

  test.skipIf(!isRoot)("without /proc it ends, and does not hang", async () => {
    const { exitCode, signalCode } = output([
      "unshare",
      "--mount",
      "sh",
      "-c",
      `umount --lazy /proc && exec ${pause}`,
    ]);
    expect([exitCode, signalCode]).not.toEqual([0, null]);
  });

  test("as PID 1 with closed descriptors it has none of its own", async () => {
    await using pod = await Pod.start(["sh", "-c", `exec ${pause} <&- >&-`]);
    await until("rest", () => resting(pod.pid));
    expect(output(["ls", `/proc/${pod.pid}/fd`]).stdout).toBe("2\n");
  });
});
