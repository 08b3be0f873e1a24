/**
 * Every path of a program: main's, in a world of its own for each run, and those of the handlers that it installs.
 */
import { NULL, SIGCHLD } from "../constants.ts";
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
  LAST,
  MAX_REPEATS,
  type Node,
  type Program,
  Recorder,
  type Trace,
  Unsupported,
  type Watch,
} from "../explore.ts";
import { type Argument, type Handler, type Libc, type Main, type Stream, stderr, stdout } from "../libc.ts";
import { only, runInNewWorld, type Source } from "./world.ts";

/** A call that comes again so often, and for the same answer, is a loop without an end; less often where it was one. */
const LOOP = 1000;
const LOOP_AGAIN = 20;
/** How often it comes again before it gets another answer. */
const MANY = 1 << 16;
const here = () => new Error();

/** Paths that are followed: of main, where each takes two milliseconds, and of a handler, which the hosted build does at every start. */
const MAX_PATHS = 1024;
const MAX_PATHS_OF_HANDLER = 16;

/** Longer ones than an executable can be. */
const MAX_TEXT = 1 << 16;

/** Whose code it is that runs. */
const FILE = "this file";
const MAIN = "main";

const NO_MEMORY = "a handler has no memory of its own";
/** Signals that glibc keeps for itself: its sigaction(3) fails for them (nptl(7)). */
const OF_LIBC: readonly number[] = [32, 33];

const NO_SEARCH = "gives argv.some what is not strcasecmp(argument, text) === 0";

/** What argv.some passes, as under Bun: an address, which is another one in every run. */
const ARGUMENTS = [0x7ffc_1234_5678, 0x7ffd_8765_4321] as Argument[];

/** A program that cannot be compiled. The message says where, who and why. */
export class Refused extends Error {
  override name = "Refused";
}

/** What a program does. */
export interface Recorded {
  readonly main: Node;
  readonly handlers: readonly Installed[];
}

/** How a path is run again. Whatever it is, the program has to do the same. */
interface Way {
  /** What it has to do: then its handlers are looked at when main has ended, and of its arguments only one that is found. */
  readonly like?: Trace;
  readonly isStrict?: boolean;
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

  /** Whose code it is that runs, and whether it is a handler's. */
  let who = FILE;
  let isHandler = false;
  const refused = (does: string, at: Error | undefined = here()) =>
    new Refused(`${source.placeOf(at) ?? source.name}: ${who} ${does}`);
  /** Runs what is this one's, and adds to its errors who did it and where. */
  const said = <T>(name: string, what: () => T): T => {
    const before = who;
    who = name;
    try {
      const result = what();
      who = before;
      return result;
    } catch (error) {
      if (error instanceof Refused) throw error;
      if (error instanceof Unsupported) throw refused(error.message, error.at);
      throw refused(`throws ${textOf(error)}`, error as Error | undefined);
    }
  };

  /** What a handler does for a signal. One that is known already, and does the same, is looked at more briefly. */
  const install = (
    handler: Handler,
    signo: number,
    name = handler.name,
    isBrief = handlers.some((one) => one.name === name && one.signo === signo),
  ): Installed => {
    const root = said(name, () => {
      isHandler = true;
      const program = (watch: Omit<Watch, "most">) => {
        let returned: unknown;
        const { run } = handlerProgram(
          (words, signo) => {
            returned = handler(words, signo);
          },
          signo,
          { most: MAX_REPEATS, ...watch },
          (words, refuse) => {
            const _exit = (status: number) =>
              isStatus(status) ? words._exit(status) : refuse(`gives _exit ${status}, and ${STATUS}`);
            return only({ ...words, _exit }, (word) =>
              refuse(`uses ${word}, which is not async-signal-safe here`),
            );
          },
        );
        return (choice: Choice) => {
          const trace = run(choice);
          // What an async function calls after it has waited would be lost, and a generator calls nothing.
          if (typeof returned === "object" && returned !== null)
            throw new Unsupported("returns an object: a handler is no async function, and no generator");
          return trace;
        };
      };
      const brief = program({ loop: LOOP_AGAIN });
      const [run, often] = isBrief ? [brief, LOOP_AGAIN] : [program({ loop: LOOP, here, wrong }), MANY];
      const why = () => `does something else when it is run again: ${NO_MEMORY}`;
      return explore(confirmed(run, brief, why, often, MAX_PATHS_OF_HANDLER, knownOf(name)), knownOf(name));
    });
    isHandler = false;
    for (const one of handlers) if (one.name === name && one.root === root) return one;
    if (isBrief) return install(handler, signo, name, false);
    const one = { name, signo, root };
    handlers.push(one);
    return one;
  };

  /** What each argv.some of a run looked for. */
  const searches = new WeakMap<Trace, string[][]>();

  const run = (choice: Choice, way?: Way): Trace => {
    /** The argument that argv.some looks at, and what it is compared with. */
    let asked: string | undefined;
    let compared: string[] = [];
    const address = ARGUMENTS[way === undefined ? 0 : 1] as Argument;
    const like = way?.like;
    const recorder: Recorder = new Recorder(choice, {
      most: LOOP,
      ...(way === undefined ? { loop: LOOP, here } : { loop: LOOP_AGAIN }),
      wrong(call) {
        refuseHandler();
        if (asked !== undefined) return `calls ${call.word} for each argument`;
        return way === undefined ? wrong(call) : undefined;
      },
    });
    const refuse = (does: string, at?: Error): never => recorder.refuse(refused(does, at));
    /** A handler sees the words of main where it is a function within main. */
    const refuseHandler = () => {
      if (isHandler) refuse("calls a word of main here, and none is async-signal-safe");
    };
    /** What a handler does. That it is refused holds even if main catches it. */
    const look = (...handler: Parameters<typeof install>): Installed => {
      try {
        return install(...handler);
      } catch (error) {
        return recorder.refuse(error as Error);
      }
    };
    const searched: string[][] = [];
    searches.set(recorder, searched);
    /** What is done when main has ended. */
    const later: (() => void)[] = [];
    let reaps = false;

    const write = (fd: Stream, text: string) => {
      recorder.answer({ word: "write", fd, text });
    };
    const words: Libc = {
      argv: only<Libc["argv"]>(
        {
          some(isWanted) {
            refuseHandler();
            const isFound = (argument: string): boolean => {
              asked = argument;
              try {
                return isWanted(address);
              } finally {
                asked = undefined;
              }
            };
            const check = (argument: string, texts: readonly string[]) => {
              if (isFound(argument) !== texts.some((text) => isEqual(text, argument))) refuse(NO_SEARCH);
            };
            let texts: string[] = [];
            if (like === undefined) {
              const others = [...OTHERS];
              for (const argument of others) {
                compared = [];
                isFound(argument);
                for (const text of compared)
                  if (!texts.some((known) => isEqual(known, text))) {
                    texts.push(text);
                    others.push(text, ...nearMisses(text));
                  }
              }
              for (const argument of others) check(argument, texts);
            } else texts = searches.get(like)?.[searched.length] ?? [];
            searched.push(texts);
            const found = texts.findIndex((text) => recorder.answer({ word: "argument", text }) === 1);
            if (like !== undefined && found >= 0) check(texts[found] ?? "", texts);
            return found >= 0;
          },
        },
        (name) => refuse(`uses argv.${name}, which is no word of main`),
      ),
      stderr,
      fprintf: write,
      getpid: () => recorder.answer({ word: "getpid" }),
      pause: () => recorder.answer({ word: "pause", reaps }),
      printf: (text) => write(stdout, text),
      sigaction(signo, act, oldact) {
        refuseHandler();
        for (const field of Object.keys(act))
          if (field !== "sa_handler" && field !== "sa_flags")
            refuse(`gives sigaction ${field}, which it does not have here`);
        if (oldact !== NULL) refuse("gives sigaction an oldact that is not NULL");
        if (OF_LIBC.includes(signo)) return -1;
        const { sa_handler, sa_flags: flags = 0 } = act;
        const before = like?.made[recorder.made.length]?.call;
        let handler: Installed | number = 0;
        if (typeof sa_handler === "number") handler = sa_handler;
        else if (typeof sa_handler !== "function") refuse("gives sigaction what is no handler");
        else if (like === undefined) handler = look(sa_handler, signo);
        else if (before?.word === "sigaction" && typeof before.handler === "object") {
          const at = here();
          const first = before.handler;
          handler = first;
          later.push(() => {
            if (look(sa_handler, signo, first.name) !== first)
              refuse(`installs ${first.name}, which later does something else: ${NO_MEMORY}`, at);
          });
        }
        const result = recorder.answer({ word: "sigaction", signo, handler, flags });
        if (signo === SIGCHLD && result === 0) reaps = typeof handler === "object";
        return result;
      },
      strcasecmp(argument, text) {
        if (argument !== address || asked === undefined)
          refuse("gives strcasecmp what is not the argument that argv.some looks at");
        if (typeof text !== "string") refuse(`gives strcasecmp ${text}`);
        compared.push(text);
        return isEqual(asked ?? "", text) ? 0 : lower(asked ?? "") < lower(text) ? -1 : 1;
      },
    };

    [who, isHandler] = [FILE, false];
    const start = (main: Main): never => {
      if (typeof main !== "function") return refuse("gives start no main");
      who = MAIN;
      let status: unknown;
      try {
        status = main(only(words, (word) => refuse(`uses ${word}, which is no word of main`)));
      } finally {
        for (const check of later.toReversed()) check();
      }
      const last = recorder.made.at(-1)?.at;
      if (!isStatus(status))
        refuse(`returns ${textOf(status)}${last === undefined ? "" : " after this"}, and ${STATUS}`, last);
      return recorder.exit(status as number);
    };
    const trace = recorder.record(() => {
      runInNewWorld(way?.isStrict ? source.strict : source.sloppy, start, refuse);
      return refuse("gives start no main");
    });
    who = MAIN;
    return trace;
  };

  const again = (choice: Choice, like: Trace) => run(choice, { like, isStrict: true });
  /** Why main goes another way then. */
  const why = (choice: Choice, trace: Trace) => {
    const differs = (way: Way) => differenceOf(trace, run(choice, way)) !== undefined;
    let because = "it depends on names, or on not being in strict mode";
    if (differs({})) because = "it is not a function of the answers to its calls";
    else if (differs({ like: trace }))
      because = "a handler, or what argv.some is given, changes what main does";
    return `goes another way when it is run again: ${because}`;
  };

  const nodes: Node[] = [];
  const main = said(MAIN, () => {
    const root = explore(confirmed(run, again, why, MANY, MAX_PATHS, nodes), nodes);
    for (const node of nodes)
      if ("call" in node && node.call.word === "pause" && node.branches[0] !== AGAIN)
        throw new Unsupported("goes on after pause(), which it has to call forever", node.at);
    return root;
  });
  const isInstalled = (handler: Installed) =>
    nodes.some((node) => "call" in node && node.call.word === "sigaction" && node.call.handler === handler);
  return { main, handlers: handlers.filter(isInstalled) };
}

const lower = (text: string) => text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
const isEqual = (one: string, other: string) => lower(one) === lower(other);

/** Arguments that hardly anything is compared with: the first of all, one of the last, and one between. */
const OTHERS = ["", "x", "\x7f"];

/** Arguments that are nearly this one, before it and behind. */
function nearMisses(text: string): string[] {
  const most = text.slice(0, -1);
  const last = text.charCodeAt(text.length - 1);
  return text === ""
    ? [" "]
    : [most, `${text} `, ...[last - 1, last + 1].map((code) => most + String.fromCharCode(code))];
}

/** A value of the program's, in one line. */
function textOf(value: unknown): string {
  try {
    return String(value).replace(/\s+/g, " ");
  } catch {
    return "an object";
  }
}

const STATUS = "an exit status is 0 to 255";
const isStatus = (value: unknown): value is number =>
  typeof value === "number" && Number.isInteger(value) && value >= 0 && value < 256;

/** What no call may be given, in either build. */
function wrong(call: Call): string | undefined {
  for (const [field, value] of Object.entries(call)) {
    if (typeof value === "number" && !Number.isSafeInteger(value))
      return `gives ${call.word} the ${field} ${value}`;
    if (field === "text" && typeof value === "string" && value.length > MAX_TEXT)
      return `gives ${call.word} a text of ${value.length} characters`;
    if (field === "text" && !(typeof value === "string" && /^[\0-\x7f]*$/.test(value)))
      return `gives ${call.word} what is no text of ASCII characters: ${JSON.stringify(value)}`;
    if (value === undefined) return `gives ${call.word} no ${field}`;
  }
  return undefined;
}

/**
 * A program of which every path is run again: once in another way, and with the other answers of the same classes, one at
 * a time. Loops have no memory.
 *
 * @param why tells why it is not the same in the other way
 * @param often how often a loop is tried
 */
function confirmed(
  run: (choice: Choice, way?: Way) => Trace,
  again: (choice: Choice, like: Trace) => Trace,
  why: (choice: Choice, trace: Trace) => string,
  often: number,
  maxPaths: number,
  known: Node[],
): Program {
  let paths = 0;
  let most = 1;
  const program: Program = {
    run: (choice) => run(choice),
    confirm(_, trace) {
      const { made, end } = trace;
      const product = made.reduce((product, { call }) => product * CLASSES[call.word].length, 1);
      most = Math.max(most, product);
      if (++paths > maxPaths)
        throw new Unsupported(
          `has too many paths: up to ${most} by its answers, and ${maxPaths} can be followed`,
        );
      const classes = made.map(({ chosen }) => chosen);
      // The last call is made again and again.
      if (end === undefined) classes.pop();
      const choice = { classes, later: LAST };
      const index = differenceOf(trace, again(choice, trace));
      if (index !== undefined) throw new Unsupported(why(choice, trace), made[index]?.at);
      for (const [index, { call, at, chosen }] of made.entries()) {
        const [, first, ...others] = CLASSES[call.word][chosen] ?? [];
        for (const answer of others)
          if (differenceOf(trace, run({ ...choice, instead: { index, answer } }, {})) !== undefined)
            throw new Unsupported(
              `uses the answer of ${call.word} as a number: for ${first} it goes another way than for ${answer}`,
              at,
            );
      }
    },
    confirmLoop(path, { call, at }, branches) {
      const repeated = branches.indexOf(AGAIN);
      const before = paths;
      for (const [other, branch] of branches.entries()) {
        if (other === repeated) continue;
        const after = (times: number) => [...path, ...Array<number>(times).fill(repeated), other];
        const long = run({ classes: after(often), later: LAST });
        const short = run({ classes: after(0), later: LAST });
        if (
          differenceOf({ ...long, made: long.made.toSpliced(path.length, often) }, short) !== undefined ||
          [1, 2].some((times) => explore(program, known, after(times)) !== branch)
        )
          throw new Unsupported(`goes another way when ${call.word} was called more often`, at);
      }
      paths = before;
    },
  };
  return program;
}

/** The index of the first call that is not the same in two runs; undefined if all are, and they end the same way. */
function differenceOf(one: Trace, other: Trace): number | undefined {
  const index = one.made.findIndex(({ call }, index) => !isSame(call, other.made[index]?.call ?? {}));
  if (index >= 0) return index;
  const isSameEnd =
    one.end === undefined || other.end === undefined ? one.end === other.end : isSameNode(one.end, other.end);
  return isSameEnd && one.made.length === other.made.length ? undefined : one.made.length - 1;
}
