/**
 * What main or a handler does, found out by running it.
 *
 * All that it can learn from the outside is the answers to the calls that it makes, and few of them matter. So it is run
 * once for each path through these answers, against words that record the call and give the next answer. What comes out
 * is a tree: a call, branches on its answer, loops, and ends.
 */
import type { Condition } from "./assembler/routine.ts";
import { describeSignal } from "./constants.ts";
import { type Handler, type SignalSafe, type Stream, stderr } from "./libc.ts";

/** A handler that sigaction installs. Two of one name that do the same are one object. */
export interface Installed {
  readonly name: string;
  /** The first signal that it was installed for. */
  readonly signo: number;
  readonly root: Node;
}

/** A call, by what it is to the kernel: psignal, printf and fprintf are write(2). */
export type Call =
  /** Is one of the program's arguments this text, whatever the case of its letters? */
  | { readonly word: "argument"; readonly text: string }
  | { readonly word: "getpid" }
  /** `reaps`: whether SIGCHLD has a handler by then. */
  | { readonly word: "pause"; readonly reaps: boolean }
  | {
      readonly word: "sigaction";
      readonly signo: number;
      /** A number is SIG_DFL or SIG_IGN. */
      readonly handler: Installed | number;
      readonly flags: number;
    }
  | { readonly word: "waitpid"; readonly pid: number; readonly options: number }
  | { readonly word: "write"; readonly fd: Stream; readonly text: string };

/**
 * Answers that a program must not tell from each other: what the result of the call is then (undefined: anything else),
 * and some of them. A program that looks for another one, as in `getpid() === 3`, is not found out.
 */
type Class = readonly [when: Condition | "found" | undefined, ...answers: readonly number[]];

/** What a program may tell apart of the answers to a call. The last class is every other answer. */
export const CLASSES: Readonly<Record<Call["word"], readonly Class[]>> = {
  argument: [
    ["found", 1],
    [undefined, 0],
  ],
  // The largest is below PID_MAX_LIMIT (linux/threads.h).
  getpid: [
    [1, 1],
    [undefined, 2, 4194303],
  ],
  pause: [[undefined, -1]],
  sigaction: [
    ["negative", -1],
    [undefined, 0],
  ],
  waitpid: [
    ["positive", 1, 4194303],
    [undefined, 0, -1],
  ],
  write: [[undefined, 0]],
};

/** How a program ends: as a process, or as a function that returns. */
export type End = { readonly exit: number; readonly at?: Error | undefined } | { readonly returns: true };

/** The way back to the call itself: it is made again for that answer, with nothing between. */
export const AGAIN = "again";

type Branch = Node | typeof AGAIN;

/** Where a program stands. Nodes that do the same are one object. */
export type Node =
  | {
      readonly call: Call;
      /** Where it was called, for who wants to tell. */
      readonly at: Error | undefined;
      /** By the classes of its answers. */
      readonly branches: readonly Branch[];
    }
  | End;

/** A program that cannot be compiled: the message says what it does, `at` where. */
export class Unsupported extends Error {
  override name = "Unsupported";
  readonly at: Error | undefined;

  constructor(message: string, at?: Error) {
    super(message);
    this.at = at;
  }
}

/** Which answers a run gets. */
export interface Choice {
  /** The class of each, in the order of the calls. */
  readonly classes: readonly number[];
  /** The class of all later ones: the last one of a call that has no such. */
  readonly later: number;
  /** An answer other than the first of its class, for one of the calls. */
  readonly instead?: { readonly index: number; readonly answer: number };
}

/** In the place of a class: the last one of any call. */
export const LAST = 9;

/** A call that was made, and the class of its answer. */
export interface Made {
  readonly call: Call;
  readonly at: Error | undefined;
  readonly chosen: number;
}

/** One run. Without an end, it makes its last call again and again. */
export interface Trace {
  readonly made: readonly Made[];
  readonly end: End | undefined;
}

/** A program, as the explorer sees it. */
export interface Program {
  /** Runs it once. */
  run(choice: Choice): Trace;
  /** Is shown each path. Throws Unsupported if it cannot be followed. */
  confirm?(choice: Choice, trace: Trace): void;
  /** Is shown each loop: the classes that lead to its call, and what follows it. Throws Unsupported. */
  confirmLoop?(path: readonly number[], call: Made, branches: readonly Branch[]): void;
}

/**
 * Every path of a program from these answers on, as a tree.
 *
 * It runs at every start of the hosted build, so it is few functions and few kinds of objects: each takes memory there.
 *
 * @param known all nodes so far: what does the same as one of them becomes that one
 * @param trace the run that got these answers
 * @throws {Unsupported} if the program is not a function of its answers, or does not end.
 */
export function explore(
  program: Program,
  known: Node[],
  classes: readonly number[] = [],
  trace = program.run({ classes, later: LAST }),
): Node {
  program.confirm?.({ classes, later: LAST }, trace);
  const { made, end } = trace;
  let node: Branch = end === undefined ? AGAIN : intern(end, known);
  const path: number[] = [];
  for (let index = 0; index < made.length; index++) path.push(made[index]?.chosen ?? 0);
  for (let index = made.length - 1; index >= classes.length; index--) {
    const here = made[index];
    if (here === undefined) break;
    path.length = index;
    const branches: Branch[] = [];
    for (let other = 0; other < here.chosen; other++) {
      const next = path.concat(other);
      const then = program.run({ classes: next, later: LAST });
      const following = then.made[next.length];
      let isLoop = false;
      if (following !== undefined && isSame(following.call, here.call)) {
        const again = program.run({ classes: next, later: other });
        isLoop = again.end === undefined && again.made.length === next.length + 1;
      }
      branches.push(isLoop ? AGAIN : explore(program, known, next, then));
    }
    if (node === AGAIN && branches.includes(AGAIN))
      throw new Unsupported(
        `does not end: it calls ${here.call.word} again and again, whatever the answer`,
        here.at,
      );
    branches.push(node);
    if (branches.length > 1 && branches.includes(AGAIN)) program.confirmLoop?.(path, here, branches);
    node = intern({ call: here.call, at: here.at, branches }, known);
  }
  if (node === AGAIN) throw new Unsupported("goes another way when it is run again");
  return node;
}

function intern(node: Node, known: Node[]): Node {
  for (let index = 0; index < known.length; index++) {
    const one = known[index];
    if (one !== undefined && isSameNode(one, node)) return one;
  }
  known.push(node);
  return node;
}

/** What a call consists of. A list of these takes no memory at a comparison, as Object.keys does. */
const FIELDS = ["word", "text", "fd", "pid", "options", "signo", "handler", "flags", "reaps"] as const;

export function isSame(one: Partial<Call>, other: Partial<Call>): boolean {
  for (let index = 0; index < FIELDS.length; index++) {
    const field = FIELDS[index] as keyof Call;
    if (one[field] !== other[field]) return false;
  }
  return true;
}

/** Whether two nodes do the same. Where they stand in a file makes no difference; their branches are known. */
export function isSameNode(one: Node, other: Node): boolean {
  if ("exit" in one) return "exit" in other && one.exit === other.exit;
  if ("returns" in one) return "returns" in other;
  if (!("call" in other) || !isSame(one.call, other.call)) return false;
  for (let index = 0; index < one.branches.length; index++)
    if (one.branches[index] !== other.branches[index]) return false;
  return true;
}

/** Calls on one path. A program that makes more is taken for one that does not end. */
const MAX_CALLS = 100;

/** Ends a run from within. Not an Error: a start has no time for its stack. What a program does that catches it is lost. */
const ENOUGH = {};

/** How runs are watched. */
export interface Watch {
  /** How often a call may come again, for the same answer, without a loop. */
  readonly most: number;
  /** How often it comes again until it is taken for a loop. */
  readonly loop: number;
  /** Where the program is, at a call. */
  readonly here?: () => Error;
  /** What is wrong with a call. */
  readonly wrong?: (call: Call) => string | undefined;
}

/** How often a handler may make a call again, for the same answer, without a loop. */
export const MAX_REPEATS = 8;

/** The record of one run, while it is made. */
export class Recorder {
  readonly made: Made[];
  end: End | undefined;
  private isOver: boolean;
  private calls: number;
  private streak: number;
  private repeated: Made | undefined;
  private refusal: Error | undefined;
  private readonly choice: Choice;
  private readonly watch: Watch;

  constructor(choice: Choice, watch: Watch) {
    this.made = [];
    this.end = undefined;
    this.isOver = false;
    this.calls = 0;
    this.streak = 0;
    this.repeated = undefined;
    this.refusal = undefined;
    this.choice = choice;
    this.watch = watch;
  }

  /** Records a call, and answers it. */
  answer(call: Call): number {
    if (this.isOver) throw ENOUGH;
    const { classes, later, instead } = this.choice;
    const { most, loop, here, wrong } = this.watch;
    const index = this.made.length;
    const possible = CLASSES[call.word];
    const wanted = classes[index] ?? later;
    const chosen = wanted < possible.length ? wanted : possible.length - 1;
    const before = this.made[index - 1];
    const isAgain = before !== undefined && before.chosen === chosen && isSame(before.call, call);
    if (!isAgain) this.calls++;
    this.streak = isAgain ? this.streak + 1 : 0;
    // That it comes again for answers that were asked for says nothing.
    const notAsked = index - classes.length;
    const repeats = this.streak < notAsked ? this.streak : notAsked;
    if (this.streak <= MAX_REPEATS) {
      const reason = wrong?.(call);
      if (reason !== undefined) this.refuse(reason);
      this.made.push({ call, at: here?.(), chosen });
    } else if (before !== undefined) this.made.push(before);
    if (repeats === most) this.repeated = before;
    if (repeats === loop) {
      this.made.length -= repeats;
      this.isOver = true;
      throw ENOUGH;
    }
    if (this.calls > MAX_CALLS)
      this.refuse(`does not end within ${MAX_CALLS} calls, and a loop can be of one call only`);
    return instead?.index === index ? instead.answer : (possible[chosen]?.[1] ?? 0);
  }

  /** Records the end of the process, and ends the run. */
  exit(status: number): never {
    if (!this.isOver) this.end = { exit: status, at: this.watch.here?.() };
    this.isOver = true;
    throw ENOUGH;
  }

  /** Ends the run for a reason that holds even if the program catches what is thrown. */
  refuse(reason: string | Error): never {
    this.refusal ??= typeof reason === "string" ? new Unsupported(reason, this.watch.here?.()) : reason;
    throw this.refusal;
  }

  /** Runs the program, which returns its end. Throws what it throws, and why it was refused. */
  record(program: () => End): Trace {
    try {
      const end = program();
      if (!this.isOver) this.end = end;
    } catch (error) {
      if (this.refusal === undefined && !this.isOver) throw error;
    }
    if (this.refusal !== undefined) throw this.refusal;
    if (this.end !== undefined && this.repeated !== undefined)
      throw new Unsupported(
        `makes a call more than ${this.watch.most} times, and not forever`,
        this.repeated.at,
      );
    return this;
  }
}

/** A handler for a signal, as a program. `guard` stands between the handler and its words. */
export function handlerProgram(
  handler: Handler,
  signo: number,
  watch: Watch,
  guard?: (words: SignalSafe, refuse: (reason: string) => never) => SignalSafe,
): Program {
  /** Of the run that is made. */
  let recorder: Recorder;
  const words: SignalSafe = {
    stderr,
    _exit: (status) => recorder.exit(status),
    psignal(signo, message) {
      const { description } =
        describeSignal(signo) ?? recorder.refuse(`gives psignal ${signo}, a signal without a name`);
      words.write(stderr, message === "" ? `${description}\n` : `${message}: ${description}\n`);
    },
    waitpid: (pid, _wstatus, options) => recorder.answer({ word: "waitpid", pid, options }),
    write(fd, text) {
      recorder.answer({ word: "write", fd, text });
    },
  };
  const guarded = guard?.(words, (reason) => recorder.refuse(reason)) ?? words;
  return {
    run(choice) {
      recorder = new Recorder(choice, watch);
      return recorder.record(() => {
        handler(guarded, signo);
        return { returns: true };
      });
    },
  };
}
