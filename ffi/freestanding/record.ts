/**
 * Every path of a program: main's, in a world of its own for each run, and those of the handlers that it installs.
 */
import { SIGCHLD } from "../constants.ts";
import {
  AGAIN,
  type Call,
  type Choice,
  CLASSES,
  explore,
  handlerProgram,
  type Installed,
  isSame,
  isSameNode,
  MAX_REPEATS,
  type Node,
  type Program,
  Recorder,
  type Trace,
  Unsupported,
} from "../explore.ts";
import { type Argument, ascii, type Handler, type Libc, type Stream, stderr, stdout } from "../libc.ts";
import { only, runInNewWorld, type Source } from "./world.ts";

/** A call that comes again so often, and for the same answer, is a loop without an end. */
const LOOP = 1000;
const here = () => new Error();

/** Paths that are followed. Each takes some milliseconds. */
const MAX_PATHS = 4096;

const NO_MEMORY = "a handler has no memory of its own";

/** What argv.some passes: it can be handed to strcasecmp, and is no text and no number. */
const ARGUMENT = Object.freeze(Object.create(null)) as Argument;

/** A program that cannot be compiled. The message says where, who and why. */
export class Refused extends Error {
  override name = "Refused";
}

/** What a program does. */
export interface Recorded {
  readonly main: Node;
  readonly handlers: readonly Installed[];
}

/**
 * Runs a program on every path.
 *
 * @throws {Refused} if it is not a function of its answers, uses an answer for more than telling its classes apart,
 *   does not end in an exit status or in pause() forever, or uses something that is not there.
 */
export function record(source: Source): Recorded {
  const handlers: Installed[] = [];
  /** The nodes of main and of each handler: what is one in the listing stands at one place. */
  const known = new Map<string, Node[]>();
  const knownOf = (name: string): Node[] => {
    const nodes = known.get(name) ?? [];
    known.set(name, nodes);
    return nodes;
  };

  /** What a handler does for a signal. */
  const install = (handler: Handler, signo: number): Installed => {
    const { name } = handler;
    const root = said(source, name, () => {
      const watch = { most: MAX_REPEATS, loop: LOOP, here };
      const { run } = handlerProgram(refusingPromises(handler), signo, watch, (words, refuse) =>
        only(words, (word) => refuse(`uses ${word}, which is not async-signal-safe here`)),
      );
      const nodes = knownOf(name);
      return explore(confirmed(run, nodes, `does something else when it is run again: ${NO_MEMORY}`), nodes);
    });
    for (const one of handlers) if (one.name === name && one.root === root) return one;
    const one = { name, signo, root };
    handlers.push(one);
    return one;
  };

  const run = (choice: Choice, moreArguments = 0): Trace => {
    const recorder = new Recorder(choice, { most: LOOP, loop: LOOP, here });
    const installed: (() => void)[] = [];
    const words = mainWords(recorder, moreArguments, (handler, signo) => {
      const first = install(handler, signo);
      const at = new Error();
      installed.push(() => {
        if (install(handler, signo) !== first)
          throw new Unsupported(
            `installs ${handler.name}, which later does something else: ${NO_MEMORY}`,
            at,
          );
      });
      return first;
    });
    const refuse = (reason: string) => recorder.refuse(reason);
    const trace = recorder.record(() => {
      const exit = runInNewWorld(
        source,
        only(words, (word) => refuse(`uses ${word}, which is no word of main`)),
        refuse,
      );
      if (!(typeof exit === "number" && Number.isInteger(exit) && exit >= 0 && exit < 256))
        return refuse(`returns ${exit}, which is no exit status`);
      return { exit };
    });
    for (const again of installed) again();
    return trace;
  };
  const nodes: Node[] = [];
  const main = said(source, "main", () => {
    const root = explore(confirmed(run, nodes, "does something else with more arguments"), nodes);
    for (const node of nodes)
      if ("call" in node && node.call.word === "pause" && node.branches[0] !== AGAIN)
        throw new Unsupported("goes on after pause(), which it has to call forever", node.at);
    return root;
  });
  return { main, handlers };
}

/** Adds to an error who did it and where. */
function said<T>(source: Source, who: string, what: () => T): T {
  try {
    return what();
  } catch (error) {
    if (error instanceof Refused) throw error;
    const [does, at] =
      error instanceof Unsupported
        ? [error.message, error.at]
        : [`throws ${error}`, error as Error | undefined];
    throw new Refused(`${source.placeOf(at) ?? source.name}: ${who} ${does}`);
  }
}

/** A program of which every path is run again, with the other answers of the same classes, one at a time. Loops have no memory. */
function confirmed(run: (choice: Choice, more?: number) => Trace, known: Node[], otherwise: string): Program {
  let paths = 0;
  const program: Program = {
    run,
    confirm(choice, trace) {
      const { made } = trace;
      if (++paths > MAX_PATHS) {
        const most = made.reduce((product, { call }) => product * CLASSES[call.word].length, 1);
        throw new Unsupported(
          `has too many paths: up to ${most} by its answers, and ${MAX_PATHS} can be followed`,
        );
      }
      if (!isSameTrace(trace, run(choice, 3))) throw new Unsupported(otherwise);
      for (const [index, { call, at, chosen }] of made.entries()) {
        const [, first, ...others] = CLASSES[call.word][chosen] ?? [];
        for (const answer of others)
          if (!isSameTrace(trace, run({ ...choice, instead: { index, answer } })))
            throw new Unsupported(
              `uses the answer of ${call.word} as a number: for ${first} it goes another way than for ${answer}`,
              at,
            );
      }
    },
    confirmLoop(path, { call, at }, branches) {
      const again = branches.indexOf(AGAIN);
      for (const [other, branch] of branches.entries())
        for (const times of [[again], [again, again]])
          if (other !== again && explore(program, known, [...path, ...times, other]) !== branch)
            throw new Unsupported(`goes another way when ${call.word} was called more often`, at);
    },
  };
  return program;
}

/** Whether two runs make the same calls, and end the same way. */
function isSameTrace(one: Trace, other: Trace): boolean {
  if (one.made.length !== other.made.length) return false;
  if (!one.made.every(({ call }, index) => isSame(call, other.made[index]?.call ?? {}))) return false;
  return one.end === undefined || other.end === undefined
    ? one.end === other.end
    : isSameNode(one.end, other.end);
}

/** What an async function calls after it has waited would be lost. */
const refusingPromises =
  (handler: Handler): Handler =>
  (words, signo) => {
    const returned: unknown = handler(words, signo);
    if (returned instanceof Object)
      throw new Unsupported("returns an object: a handler is no async function");
  };

/** The words of main, recorded. */
function mainWords(
  recorder: Recorder,
  moreArguments: number,
  install: (handler: Handler, signo: number) => Installed,
): Libc {
  const answer = (call: Call): number => {
    for (const [field, value] of Object.entries(call))
      if (value === undefined || (typeof value === "number" && !Number.isSafeInteger(value)))
        recorder.refuse(`gives ${call.word} the ${field} ${value}`);
    return recorder.answer(call);
  };
  const write = (fd: Stream, text: string): void => {
    ascii(text);
    answer({ word: "write", fd, text });
  };
  let reaps = false;
  /** The texts that an argument was compared with. */
  let compared: string[] = [];
  let equal: string | undefined;
  let unequal = 1;

  return {
    argv: {
      some(isWanted) {
        /** Whether an argument is wanted that equals this text, or none. */
        const ask = (text?: string, order = 1): unknown => {
          [compared, equal, unequal] = [[], text, order];
          return isWanted(ARGUMENT);
        };
        const isAny = ask() !== false || ask(undefined, -1) !== false;
        const texts = compared;
        if (isAny || texts.length === 0 || texts.some((text) => ask(text) !== true))
          recorder.refuse("gives argv.some what is not strcasecmp(argument, text) === 0");
        for (let more = 0; more < moreArguments; more++) ask();
        return texts.some((text) => answer({ word: "argument", text }) === 1);
      },
    },
    stderr,
    fprintf: write,
    getpid: () => answer({ word: "getpid" }),
    pause() {
      return answer({ word: "pause", reaps });
    },
    printf: (text) => write(stdout, text),
    sigaction(signo, act, _oldact) {
      for (const field of Object.keys(act))
        if (field !== "sa_handler" && field !== "sa_flags")
          recorder.refuse(`gives sigaction ${field}, which it does not have here`);
      const { sa_handler, sa_flags: flags = 0 } = act;
      let handler: Installed | number;
      try {
        handler = typeof sa_handler === "function" ? install(sa_handler, signo) : sa_handler;
      } catch (error) {
        return recorder.refuse(error as Error);
      }
      const result = answer({ word: "sigaction", signo, handler, flags });
      if (signo === SIGCHLD && result === 0) reaps = typeof handler !== "number";
      return result;
    },
    strcasecmp(argument, text) {
      if (argument !== ARGUMENT) recorder.refuse("gives strcasecmp what is not an argument of argv.some");
      compared.push(text);
      return text === equal ? 0 : unequal;
    },
  };
}
