/**
 * At rest: the start is over, and what stays is what there will be until the next signal.
 */
import { readlinkSync } from "node:fs";
import { field, isGone, proc, report, type Subject, until } from "./process.ts";
import type { Program } from "./programs.ts";

/** The signals that pause.c catches, as SigCgt shows them: INT, TERM, CHLD. */
export const CAUGHT = "0000000000014002";
export const NO_SIGNAL = "0000000000000000";

/** The system call in which a program rests: arm64 has no pause(2), so glibc and we call ppoll(2) there. */
export const PAUSE = process.arch === "arm64" ? "ppoll" : "pause";

/** Numbers of this machine's system calls. qemu-user makes rt_sigsuspend of its guest's pause; ppoll stays what it is. */
const { pause, rt_sigsuspend, ppoll } =
  process.arch === "arm64"
    ? { pause: undefined, rt_sigsuspend: 133, ppoll: 73 }
    : { pause: 34, rt_sigsuspend: 130, ppoll: 271 };

/** Whether a process sleeps in pause, under qemu-user too, of whose guests /proc/PID/status says nothing. */
export const sleepsInPause = (pid: number): boolean =>
  [pause, rt_sigsuspend, ppoll].includes(Number.parseInt(proc(pid, "syscall"), 10));

/** In what a process at rest differs from one that started as usual. */
export interface Surroundings {
  /** SigCgt, where a setting of Bun's adds to it. A runtime that stays may have its threads' signals above. */
  readonly caught?: string;
  /** SigBlk: the inherited mask. */
  readonly blocked?: string;
  /** ShdPnd: a blocked signal that was pending on entry stays so. */
  readonly pending?: string;
  /** Bun's threads and executable may still be there, because something asked for them. */
  readonly runtime?: "gone" | "may stay";
}

/** The lines of /proc/PID/maps that belong to the executable; undefined where we may not see them, or it is gone. */
function mappingsOfExecutable(pid: number): string[] | undefined {
  try {
    const executable = readlinkSync(`/proc/${pid}/exe`);
    const maps = proc(pid, "maps");
    return maps === "" ? undefined : maps.split("\n").filter((line) => line.endsWith(` ${executable}`));
  } catch {
    return undefined;
  }
}

/** Nothing of the start is left: no thread of the runtime and nothing of its executable. */
export function runtimeIsGone(pid: number, { keeps }: Program): boolean {
  const mappings = mappingsOfExecutable(pid);
  return field(proc(pid, "status"), "Threads") === "1" && mappings !== undefined && keeps(mappings);
}

/** It sleeps in pause(2), with its handlers in place, the signal mask that it inherited and no signal waiting. */
export function isAtRest(pid: number, program: Program, surroundings: Surroundings = {}): boolean {
  const { caught = CAUGHT, blocked = NO_SIGNAL, pending = NO_SIGNAL, runtime = "gone" } = surroundings;
  const now = proc(pid, "status");
  const catches = field(now, "SigCgt");
  return (
    (runtime === "gone" ? catches === caught : catches.endsWith(caught.replace(/^0+/, ""))) &&
    field(now, "SigBlk") === blocked &&
    field(now, "ShdPnd") === pending &&
    field(now, "State").startsWith("S") &&
    (runtime === "may stay" || runtimeIsGone(pid, program))
  );
}

/** Waits until a process rests or has ended; whether it rests. */
export async function restsOrEnds(subject: Subject, program: Program, surroundings: Surroundings = {}) {
  let rests = false;
  const settled = () => {
    rests = isAtRest(subject.pid, program, surroundings);
    return rests || isGone(subject.pid);
  };
  await until(`${program.name} at rest, or its end`, settled, subject);
  return rests;
}

/**
 * Waits until it is at rest.
 *
 * @throws at once if it ends instead, with what it wrote.
 */
export async function untilAtRest(subject: Subject, program: Program, surroundings: Surroundings = {}) {
  if (!(await restsOrEnds(subject, program, surroundings)))
    throw new Error(`${program.name} ended instead of coming to rest${await report(subject)}`);
}
