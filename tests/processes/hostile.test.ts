/**
 * Hostile starts, each as PID 1 of a new namespace: every program comes to rest, reaps and ends on SIGTERM, but for
 * those starts at which Bun ends the hosted one: with one clear line and a known exit code.
 */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describeEach, ended, expectAlike, expectTerminates, MESSAGE, needing } from "../helpers/expect.ts";
import { inNewNamespace, NAMESPACES, outside, Pod, UNPRIVILEGED } from "../helpers/pod.ts";
import { childrenOf, output, until } from "../helpers/process.ts";
import { compile, freestanding, hosted, type Program, programs, reference } from "../helpers/programs.ts";
import { restsOrEnds, untilAtRest } from "../helpers/rest.ts";
import { CC } from "../helpers/tools.ts";

const { test } = needing(NAMESPACES);

const cc = needing(NAMESPACES, CC);
const surroundings = cc.skip ? "" : compile("surroundings");
const isRoot = process.getuid?.() === 0;
const unprivileged = UNPRIVILEGED.join(" ");

/** Files that Bun would read, each of which would show itself. */
const folder = join(tmpdir(), `pause-hostile-${process.pid}`);
const planted = join(folder, "planted");
const evil = 'require("node:fs").writeSync(2, "EVIL\\n");';
const files: Record<string, string> = {
  "bunfig.toml": 'preload = ["./evil.ts"]\n[run]\npreload = ["./evil.ts"]\n',
  ".bunfig.toml": 'preload = ["./evil.ts"]\n',
  ".env": "BUN_INSPECT=127.0.0.1:0\nBUN_OPTIONS=--preload=./evil.ts\n",
  "package.json": '{ "name": "x", "main": "evil.ts", "type": "commonjs" }',
  "tsconfig.json": '{ "compilerOptions": { "paths": { "*": ["./evil.ts"] } } }',
  "evil.ts": evil,
  "libc.so.6": evil,
  "node_modules/bun/index.js": evil,
};
beforeAll(() => {
  mkdirSync(join(planted, "node_modules/bun"), { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(planted, name), text);
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Makes a root file system of what the two programs link, in which nothing else is, not even /dev; see `chroot`. */
const root = `r=$(mktemp -d); mount -t tmpfs none $r; mkdir $r/usr $r/proc; mount --rbind /usr $r/usr
  cp --no-dereference /lib* $r 2>/dev/null; touch $r/pause; mount --bind $1 $r/pause; mount -t proc proc $r/proc`;
const chroot = "mount -o remount,ro $r; exec chroot $r /pause; exec";

/** Starts from which all come to rest, and end with 0 on SIGTERM: what a shell does that then becomes the program. */
const survived: Record<string, string> = {
  "as it comes": "exec",
  "no environment": "exec env -i",
  "1 MB of environment": `x=$(head -c 100000 /dev/zero | tr '\\0' x); exec env ${Array.from({ length: 10 }, (_, i) => `V${i}=$x`).join(" ")}`,
  "10,000 arguments": 'set -- "$@" $(seq 10000); exec',
  "arguments that are not UTF-8": `set -- "$@" $'\\xff\\xfe' $'\\xc0-v' ''; exec`,
  "BUN_OPTIONS with a nonsense option": "export BUN_OPTIONS=--nonsense; exec",
  "BUN_OPTIONS=--smol": "export BUN_OPTIONS=--smol; exec",
  "BUN_OPTIONS=--cpu-prof, which starts a thread": "cd $(mktemp -d); export BUN_OPTIONS=--cpu-prof; exec",
  "NODE_OPTIONS and a cache":
    "export NODE_OPTIONS='--require ./evil.ts' BUN_RUNTIME_TRANSPILER_CACHE_PATH=/tmp; exec",
  "BUN_JSC_collectContinuously=1": "export BUN_JSC_collectContinuously=1; exec",
  "BUN_JSC_forceGCSlowPaths=1, useGC=0": "export BUN_JSC_forceGCSlowPaths=1 BUN_JSC_useGC=0; exec",
  "files planted in the working directory": "cd $PLANTED; exec",
  "files planted in $HOME": "export HOME=$PLANTED XDG_CONFIG_HOME=$PLANTED; exec",
  "standard input and output closed": "exec <&- >&-; exec",
  "all standard descriptors closed": "exec <&- >&- 2>&-; exec",
  "all standard descriptors full": "exec </dev/full >/dev/full 2>/dev/full; exec",
  "standard error a broken pipe": "exec 2> >(:); wait $!; exec",
  "every signal ignored": "trap '' $(seq 1 29) $(seq 31 64); exec",
  "a small stack (256 KiB)": "ulimit -s 256; exec",
  "no limit on the stack": "ulimit -s unlimited; exec",
  "4 GB of address space": "ulimit -v 4000000; exec",
  "2.5 GB of data (ulimit -d)": "ulimit -d 2500000; exec",
  "5 descriptors": "ulimit -n 5; exec",
  "no locked memory": "ulimit -l 0; exec",
  "files of no size": "ulimit -f 0; exec",
  "no core dumps": "ulimit -c 0; exec",
  "core dumps without limit": "ulimit -c unlimited; exec",
};

/** The same, where it takes root to get there. */
const survivedFromRoot: Record<string, string> = {
  "user 65535 without capabilities, with no_new_privs": `exec ${unprivileged}`,
  "user 1, group 1": "exec setpriv --reuid 1 --regid 1 --clear-groups --pdeathsig KILL",
  "the highest user and group":
    "exec setpriv --reuid 4294967294 --regid 4294967294 --clear-groups --pdeathsig KILL",
  // It is executed by a user who may not enter every folder that a clone can lie in, such as root's own.
  "one process at most": `mount -t tmpfs none /mnt; touch /mnt/pause; mount --bind $1 /mnt/pause; set -- /mnt/pause
    exec ${unprivileged} bash -c 'ulimit -u 1; exec "$@"' bash`,
  "a working directory that it may not read": `d=$(mktemp -d); chmod 700 $d; cd $d; exec ${unprivileged}`,
  "a read-only root without /dev and /tmp": `${root}; ${chroot}`,
  "files planted in the root": `${root}; cp -r $PLANTED/. $r; ${chroot}`,
  "/proc with hidepid": `mount -t proc -o hidepid=2 none /proc; exec ${unprivileged}`,
};

const NO_DIRECTORY = /^error: The current working directory was deleted.*\n$/;
const NO_LIBC = /^Error: libc cannot be called: .*\n$/;

/** How Bun ends the hosted program, and what it says. */
type End = readonly [setup: string, end: number | NodeJS.Signals, stderr: RegExp];

/** Starts at which Bun ends the hosted program. LIMITS.md lists them. */
const refused: Record<string, End> = {
  "a working directory that is deleted": ["d=$(mktemp -d); cd $d; rmdir $d; exec", 1, NO_DIRECTORY],
  "a working directory whose file system was unmounted": [
    "mount -t tmpfs none /mnt; cd /mnt; umount --lazy /mnt; exec",
    1,
    NO_DIRECTORY,
  ],
  "a working directory with a path of 4,500 characters": [
    `mount -t tmpfs none /mnt; cd /mnt; d=$(printf %0100d 0)
    for i in $(seq 45); do mkdir $d; cd -P $d; done; exec`,
    1,
    /^error: An unknown error occurred/,
  ],
  "4 descriptors": ["ulimit -n 4; exec", 1, /error: bun ran out of file descriptors/],
  "a stack of 64 KiB": ["ulimit -s 64; exec", 1, /Bun v/],
  "2 GB of address space": ["ulimit -v 2000000; exec", 1, NO_LIBC],
  "2 GB of data (ulimit -d)": ["ulimit -d 2000000; exec", 1, NO_LIBC],
  "no /proc": ["mount -t tmpfs none /proc; exec", "SIGILL", /Bun has crashed/],
  "BUN_JSC_useJIT=0": ["exec env BUN_JSC_useJIT=0", 1, NO_LIBC],
  "an unknown option of JavaScriptCore": ["exec env BUN_JSC_x=1", 1, /invalid JSC environment variable/],
  "LD_TRACE_LOADED_OBJECTS=1, which lists libraries": ["export LD_TRACE_LOADED_OBJECTS=1; exec", 0, /^$/],
  "MIMALLOC_DISALLOW_ARENA_ALLOC=1": [
    "exec env MIMALLOC_DISALLOW_ARENA_ALLOC=1",
    "SIGILL",
    /MemoryExhaustion/,
  ],
  "BUN_BE_BUN=1, which makes it Bun": ["exec env BUN_BE_BUN=1", 0, /^$/],
};
if (isRoot)
  refused["closed descriptors, and no /dev/null to open instead"] = [
    `${root}; exec <&- >&- 2>&-; ${chroot}`,
    "SIGILL",
    /^$/,
  ];
if (isRoot && !cc.skip)
  refused["a working directory outside of the root"] = [
    `${root}; cd /tmp; export ROOT=$r; exec ${surroundings} outside /pause; exec`,
    1,
    NO_DIRECTORY,
  ];
// Linux 6.3 can be told so.
if (!cc.skip && output([surroundings, "mdwe", "true"]).exitCode === 0)
  refused["memory that cannot be made executable"] = [`exec ${surroundings} mdwe`, 1, NO_LIBC];
// Only x86's can be forbidden (PR_SET_TSC(2const)).
if (!cc.skip && process.arch === "x64")
  refused["a time-stamp counter that may not be read"] = [`exec ${surroundings} no-tsc`, "SIGSEGV", /^$/];

/** Starts from which it rests, but Bun says or does something first. */
const loud: Record<string, readonly [setup: string, stderr: RegExp]> = {
  "SIGPWR ignored": ["trap '' PWR; exec", /^Overriding existing handler for signal 30\. .*\n/],
  "LD_PRELOAD of a library that is not there": ["export LD_PRELOAD=/none.so; exec", /^ERROR: ld.so: object /],
  "LD_PROFILE, with which the runtime stays": [
    "export LD_PROFILE=libc.so.6 LD_PROFILE_OUTPUT=$TMPDIR; exec",
    /^Shutting/,
  ],
  "BUN_OPTIONS=--preload": ["cd $PLANTED; export BUN_OPTIONS=--preload=./evil.ts; exec", /^EVIL\n/],
};

/** A shell that runs `setup` and becomes the program. */
const shell = (setup: string, { executable }: Program) => [
  ...["env", `PLANTED=${planted}`, `TMPDIR=${folder}`],
  ...["bash", "-c", `${setup} "$@"`, "bash", executable],
];

/** Where the runtime may stay, and where standard error cannot be read. */
const STAYS = /--cpu-prof|collectContinuously|LD_PROFILE|--preload/;
const UNHEARD = /2>(&-|\/dev\/full| >)/;

/** How PID 1 gets on. */
async function outcome(setup: string, program: Program) {
  await using pod = await Pod.start(shell(setup, program));
  return await pod.outcome(program, STAYS.test(setup) ? { runtime: "may stay" } : {});
}

/** All of these rest, reap and end with 0. */
async function expectSurvival(setup: string, of: readonly Program[] = programs) {
  const end = ended({ stderr: UNHEARD.test(setup) ? "" : MESSAGE });
  expect(await expectAlike((program) => outcome(setup, program), of)).toEqual({ rests: true, ...end });
}

const OTHERS = [freestanding, reference];

describe("hostile starts", () => {
  for (const [name, setup] of Object.entries({ ...survived, ...(isRoot ? survivedFromRoot : {}) }))
    test(`it rests, reaps and ends with 0: ${name}`, () => expectSurvival(setup));

  for (const [name, [setup, end, stderr]] of Object.entries(refused))
    test(`only the hosted one ends at once: ${name}`, async () => {
      const result = output(["timeout", "60", ...inNewNamespace(...shell(setup, hosted))]);
      expect(result.signalCode ?? result.exitCode).toBe(end);
      expect(result.stderr).toMatch(stderr);
      await expectSurvival(setup, OTHERS);
    });

  for (const [name, [setup, stderr]] of Object.entries(loud))
    test(`it rests, reaps and ends with 0, but Bun is heard: ${name}`, async () => {
      const heard = { ...ended({}), stderr: expect.stringMatching(stderr) };
      expect(await outcome(setup, hosted)).toEqual({ rests: true, ...heard });
      await expectSurvival(setup, OTHERS);
    });

  describeEach((program) => {
    test("-v on /dev/full ends with 0", () => {
      expect(output(["bash", "-c", `${program.executable} -v >/dev/full`])).toEqual(ended({}));
    });

    test("children from before the start are reaped when they die", async () => {
      await using pod = await Pod.atRest(program, ["sh", "-c", 'sleep infinity & exec "$0"']);
      const children = childrenOf(pod.pid);
      expect(children).toHaveLength(1);
      for (const child of children) process.kill(child, "SIGKILL");
      await pod.untilAlone();
      await expectTerminates(pod);
    });

    test("as PID 1 with closed descriptors it has none of its own", async () => {
      await using pod = await Pod.atRest(program, ["sh", "-c", 'exec "$0" <&- >&-']);
      expect(readdirSync(`/proc/${pod.pid}/fd`)).toEqual(["2"]);
    });

    test("every signal blocked on entry: it rests with that mask, but for Bun's SIGPWR", async () => {
      await using child = outside(["env", "--block-signal", program.executable]);
      await untilAtRest(child, program, {
        blocked: program === hosted ? "fffffffe5ffbfeff" : "fffffffe7ffbfeff",
      });
    });

    cc.test(
      "a child that died before the start: ours reap it at once, the reference with another's death",
      async () => {
        await using pod = await Pod.atRest(program, [surroundings, "dead-child"]);
        expect(childrenOf(pod.pid).length).toBe(program === reference ? 1 : 0);
        process.kill(pod.pid, "SIGCHLD");
        await until("no child", () => childrenOf(pod.pid).length === 0, pod);
      },
    );
  });

  const outputs = { "/dev/full": "2>/dev/full", "a closed descriptor": "2>&-", "a broken pipe": "2> >(:)" };
  for (const [name, redirection] of Object.entries(outputs))
    test(`not as PID 1, standard error is ${name}: all end alike`, async () => {
      await expectAlike(async (program) => {
        await using child = outside(shell(`exec ${redirection}; wait $!; exec`, program));
        await restsOrEnds(child, program);
        return await child.end("SIGTERM");
      });
    });
});
