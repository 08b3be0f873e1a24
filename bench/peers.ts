/**
 * Who is measured: both builds, the C program with two libraries, the pause and init programs of Debian, and the floor.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { scripts } from "../package.json" with { type: "json" };
import { childrenOf, field, must, proc, status } from "../tests/helpers/process.ts";
import { compile, dist, freestanding, hosted, type Program, reference } from "../tests/helpers/programs.ts";
import { CAUGHT, isAtRest, NO_SIGNAL } from "../tests/helpers/rest.ts";
import { missing } from "../tests/helpers/tools.ts";
import { writeFloor } from "./floor.ts";
import { STANDARD } from "./table.ts";

/** Whether a process has come so far. */
export type Has = (pid: number) => boolean;

export interface Peer {
  readonly name: string;
  /** The first word is a path. */
  readonly command: readonly string[];
  /** It does its job from here on. */
  readonly ready: Has;
  /** Its start is over too, and nothing of it changes any more. */
  readonly rests: Has;
  /** What prints its version, or just ends. */
  readonly exits: readonly string[];
  /** Whether it reaps. */
  readonly reaps: boolean;
}

const sleeps: Has = (pid) => status(pid, "State").startsWith("S");
const catches: Has = (pid) => status(pid, "SigCgt") === CAUGHT;
/** catatonit catches nothing: it blocks signals and waits for them. */
const blocks: Has = (pid) => {
  const now = proc(pid, "status");
  return field(now, "SigBlk") !== NO_SIGNAL && field(now, "State").startsWith("S");
};
const childSleeps: Has = (pid) =>
  childrenOf(pid).some((child) => proc(child, "comm") === "sleep\n" && sleeps(child));
/** The hosted build's start ends after its handlers are in place: with Bun's own signals gone. */
const catchesAtLeast: Has = (pid) => status(pid, "SigCgt").endsWith("14002");

const pauses = (name: string, program: Program, ready: Has = catches): Peer => ({
  name,
  command: [program.executable],
  ready,
  rests: (pid) => isAtRest(pid, program),
  exits: [program.executable, "-v"],
  reaps: true,
});

function musl(): Peer {
  const executable = compile("reference", "musl-gcc", join(dist, "reference-musl"));
  return pauses("C, musl", { ...reference, executable });
}

function floor(): Peer {
  const { pauses: pause, exits } = writeFloor();
  return {
    name: "floor",
    command: [pause],
    ready: sleeps,
    rests: sleeps,
    exits: [exits],
    reaps: false,
  };
}

/** One of Debian's that is installed. */
function installed(
  name: string,
  [executable = "", ...rest]: readonly string[],
  version: string,
  has: Has,
): Peer {
  const path = Bun.which(executable) ?? executable;
  return { name, command: [path, ...rest], ready: has, rests: has, exits: [path, version], reaps: true };
}

/** All of them that there are. */
export function peers(leaveOut: (what: string, how: string) => void): Peer[] {
  const SLEEP = ["sleep", "infinity"];
  const all: [tools: Record<string, string>, make: () => Peer][] = [
    [{}, () => pauses("freestanding", freestanding)],
    [{}, () => pauses("hosted", hosted, catchesAtLeast)],
    [reference.tools, () => pauses(STANDARD, reference)],
    [{ "musl-gcc": "musl-tools" }, musl],
    [{ catatonit: "catatonit" }, () => installed("catatonit -P", ["catatonit", "-P"], "-V", blocks)],
    [{ tini: "tini" }, () => installed("tini", ["tini", "--", ...SLEEP], "--version", childSleeps)],
    [
      { "dumb-init": "dumb-init" },
      () => installed("dumb-init", ["dumb-init", ...SLEEP], "--version", childSleeps),
    ],
    [{}, floor],
  ];
  return all.flatMap(([tools, make]) => {
    const how = missing(tools);
    if (how === "") return [make()];
    leaveOut(Object.keys(tools).join(), how);
    return [];
  });
}

/** The command of an empty script, compiled as the hosted build is: what Bun itself takes. */
export function emptyScript(): string[] {
  const [script, executable] = [join(dist, "empty.ts"), join(dist, "empty")];
  writeFileSync(script, "");
  const flags = scripts["build:hosted"].split(" ").filter((flag) => /^--(?!outfile)/.test(flag));
  must(process.execPath, "build", ...flags, "--outfile", executable, script);
  return [executable];
}
