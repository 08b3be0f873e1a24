/**
 * main, compiled by running it.
 *
 * All that main can learn from the outside is the answers to the calls that it makes, and few of them matter. So it is
 * run once for each combination of answers, against functions that record the call and give the next answer. What
 * comes out is a tree: a call, branches on its answer, and at the ends an exit status or the loop that it rests in.
 */
import type { Condition } from "../assembler/routine.ts";
import { SIGCHLD } from "../constants.ts";
import type { Handler, Libc, Main, Stream } from "../libc.ts";
import { stderr, stdout } from "../libc.ts";

/** A call that main makes. */
export type Call =
  | { readonly word: "argv.includes"; readonly argument: string }
  | { readonly word: "getpid" }
  | { readonly word: "printf" | "fprintf"; readonly stream: Stream; readonly text: string }
  | {
      readonly word: "sigaction";
      readonly signo: number;
      /** The name of the handler. */
      readonly handler: string;
      readonly sa_flags: number;
    };

/** Where main stands: at a call, at its end, or in its loop. */
export type Node =
  | {
      readonly call: Call;
      /** Where in main's file. */
      readonly line: number;
      /** By what was answered; the last one is for every other answer. */
      readonly branches: readonly {
        readonly when: Condition | "argument" | undefined;
        readonly node: Node;
      }[];
    }
  | { readonly exit: number }
  | {
      /** The handler that is installed for SIGCHLD by then. */
      readonly restWith: string | undefined;
      readonly line: number;
    };

type Answer = number | boolean;

/** The answers of a call that main must not tell from each other, by the class that it may tell from the others. */
type Classes = readonly {
  readonly when: Condition | "argument" | undefined;
  readonly members: readonly Answer[];
}[];

const CLASSES: Readonly<Record<Call["word"], Classes>> = {
  "argv.includes": [
    { when: "argument", members: [true] },
    { when: undefined, members: [false] },
  ],
  // Some of many: a main that looks for another one of them is not found out. The largest is PID_MAX_LIMIT's
  // (linux/threads.h).
  getpid: [
    { when: 1, members: [1] },
    { when: undefined, members: [2, 7, 4194304] },
  ],
  printf: [{ when: undefined, members: [14, 0, -1] }],
  fprintf: [{ when: undefined, members: [14, 0, -1] }],
  // The kernel's error numbers reach to MAX_ERRNO (linux/err.h).
  sigaction: [
    { when: "negative", members: [-1, -22, -4095] },
    { when: undefined, members: [0] },
  ],
};

/** A main that cannot be compiled. The message says where and why. */
export class UnsupportedMain extends Error {
  override name = "UnsupportedMain";
}

/** Calls that a main may make on one path, and runs of it in all. A main that needs more is refused. */
const MAX_CALLS = 100;
const MAX_RUNS = 20_000;

/** How often pause returns to main before it is taken for its last call: every time, it can only be made again. */
const PAUSES = 1000;

/** What a program could learn from elsewhere: while main runs, it finds none of them. */
const OUTSIDE = [
  "Date",
  "Intl",
  "Temporal",
  "crypto",
  "fetch",
  "navigator",
  "performance",
  "process",
  "setTimeout",
] as const;

/** The same, but these cannot be taken away from it: so they must not stand in its text. */
const OUTSIDE_IN_TEXT = /\bBun\b|\bimport\.meta\b|\bimport\(|\brequire\(/;

/** One run of main. */
interface Run {
  readonly calls: { readonly call: Call; readonly line: number }[];
  end:
    | { readonly exit: number }
    | { readonly restWith: string | undefined; readonly line: number }
    | undefined;
}

/** Ends a run from within: main went as far as it was to go. */
class Enough extends Error {}

/** The line of the caller's caller in main's file, and "file:line". */
function callSite(): { line: number; place: string } {
  const frames = new Error().stack?.split("\n") ?? [];
  const frame = frames.find((text) => /:\d+:\d+\)?$/.test(text) && !text.includes(import.meta.path)) ?? "";
  const [, file = "main", line = "0"] = /([^/(\s]+):(\d+):\d+\)?$/.exec(frame) ?? [];
  return { line: Number(line), place: `${file}:${line}` };
}

/** Runs main once, with these answers, up to the call for which there is none left. */
function run(main: Main, handlers: Readonly<Record<string, Handler>>, answers: readonly Answer[]): Run {
  const calls: Run["calls"] = [];
  const record: Run = { calls, end: undefined };
  let pauses = 0;
  let restWith: string | undefined;
  let refusal: UnsupportedMain | undefined;
  const refuse = (reason: string): never => {
    refusal ??= new UnsupportedMain(`${callSite().place}: ${reason}`);
    throw refusal;
  };

  const answer = (call: Call): Answer => {
    const { line } = callSite();
    if (pauses > 0) refuse("main calls something else after pause(), which has to be called forever");
    if (calls.length >= MAX_CALLS) refuse(`main does not end: ${call.word} is its call number ${MAX_CALLS}`);
    const given = answers[calls.length];
    calls.push({ call, line });
    if (given === undefined) throw new Enough();
    if (call.word === "sigaction" && call.signo === SIGCHLD && given === 0) restWith = call.handler;
    return given;
  };
  const nameOf = (handler: Handler): string =>
    Object.keys(handlers).find((name) => handlers[name] === handler) ??
    refuse("sigaction is given a handler that start was not given");
  const libc: Libc = {
    argv: { includes: (argument) => answer({ word: "argv.includes", argument }) === true },
    stderr,
    fprintf: (stream, text) => Number(answer({ word: "fprintf", stream, text })),
    getpid: () => Number(answer({ word: "getpid" })),
    pause() {
      if (record.end !== undefined || pauses === PAUSES) {
        record.end ??= { restWith, line: callSite().line };
        throw new Enough();
      }
      pauses++;
      return -1;
    },
    printf: (text) => Number(answer({ word: "printf", stream: stdout, text })),
    sigaction(signo, { sa_handler, sa_flags = 0 }) {
      const handler = nameOf(sa_handler);
      if (!sa_handler.signals.includes(signo)) refuse(`${handler} was not declared for signal ${signo}`);
      return Number(answer({ word: "sigaction", signo, handler, sa_flags }));
    },
  };
  const words = new Proxy(libc, {
    get: (target, word, receiver) =>
      word in target
        ? Reflect.get(target, word, receiver)
        : refuse(`main uses ${String(word)}, which the freestanding build does not have`),
  });

  try {
    const exit = apart(refuse, () => main(words));
    if (pauses > 0) refuse("main ends after pause(), which has to be called forever");
    if (!(Number.isInteger(exit) && exit >= 0 && exit < 256))
      refuse(`main returns ${exit}, which is no exit status`);
    record.end = { exit };
  } catch (error) {
    if (!(error instanceof Enough)) refusal ??= error instanceof UnsupportedMain ? error : thrown(error);
  }
  // Even if main has caught it.
  if (refusal !== undefined) throw refusal;
  return record;
}

/** Runs something where it finds nothing of the outside. */
function apart<T>(refuse: (reason: string) => never, inside: () => T): T {
  const outside = OUTSIDE.flatMap((name) => {
    const descriptor = Object.getOwnPropertyDescriptor(globalThis, name);
    return descriptor?.configurable ? [{ name, descriptor }] : [];
  });
  const { random } = Math;
  const refuseOf = (name: string) => () => refuse(`main uses ${name}, and not only the answers to its calls`);
  try {
    for (const { name } of outside)
      Object.defineProperty(globalThis, name, { configurable: true, get: refuseOf(name) });
    Math.random = refuseOf("Math.random");
    return inside();
  } finally {
    Math.random = random;
    for (const { name, descriptor } of outside) Object.defineProperty(globalThis, name, descriptor);
  }
}

const thrown = (error: unknown): UnsupportedMain =>
  new UnsupportedMain(`main throws: ${error instanceof Error ? error.message : error}`);

/** What two runs, or two subtrees, are compared by: where in the file a call stands makes no difference. */
export const keyOf = (value: unknown): string =>
  JSON.stringify(value, (field, part) => (field === "line" ? undefined : part));

/**
 * Every path of main, as a tree.
 *
 * @param handlers every handler that main installs, by its name
 * @throws {UnsupportedMain} if main is not a function of its answers, uses an answer for more than telling its classes
 *   apart, does not end in an exit status or in pause() forever, or uses something that is not there.
 */
export function explore(main: Main, handlers: Readonly<Record<string, Handler>>): Node {
  let runs = 0;
  const [inText] = OUTSIDE_IN_TEXT.exec(String(main)) ?? [];
  if (inText !== undefined)
    throw new UnsupportedMain(`main uses ${inText}, and not only the answers to its calls`);

  const walk = (answers: readonly Answer[], before: Run["calls"]): Node => {
    if (++runs > MAX_RUNS)
      throw new UnsupportedMain(`main has more paths than ${MAX_RUNS} runs of it can follow`);
    const { calls, end } = run(main, handlers, answers);
    for (const [index, { call, line }] of before.entries())
      if (keyOf(calls[index]?.call) !== keyOf(call))
        throw new UnsupportedMain(
          `line ${line}: main calls ${call.word} in one run and something else in the next`,
        );
    const next = calls[answers.length];
    if (next === undefined) {
      if (end === undefined) throw new UnsupportedMain("main went another way when it was run again");
      return end;
    }
    const { call, line } = next;
    const branches = CLASSES[call.word].map(({ when, members }) => {
      const [node, ...others] = members.map((member) => walk([...answers, member], calls));
      const differs = others.findIndex((other) => keyOf(other) !== keyOf(node));
      if (node === undefined || differs >= 0)
        throw new UnsupportedMain(
          `line ${line}: main uses the answer of ${call.word} as a number: for ${members[0]} it goes another way than for ${members[differs + 1]}`,
        );
      return { when, node };
    });
    return { call, line, branches };
  };
  const tree = walk([], []);
  // Every path once more: at an end, there is no next run that would notice.
  if (keyOf(walk([], [])) !== keyOf(tree))
    throw new UnsupportedMain("main went another way when it was run again");
  return tree;
}
