/**
 * The tree of main, and the handlers that it installs, as routines of system calls.
 */
import type { Part, Step, Value } from "../assembler/routine.ts";
import { SIGCHLD, SIGINT, SIGTERM } from "../constants.ts";
import { ascii, type Handler, type Call as HandlerCall } from "../libc.ts";
import type { Architecture, SystemCall } from "./architectures.ts";
import { type Call, keyOf, type Node } from "./explore.ts";

/** linux/signal.h: sa_restorer is set. */
const SA_RESTORER = 0x04000000;
/** sizeof(sigset_t) of the kernel, in bytes. */
const SIZEOF_SIGSET = 8;
/** linux/prctl.h and linux/sched/coredump.h. */
const PR_SET_DUMPABLE = 4;
const SUID_DUMP_DISABLE = 0;

/** The name that debuggers know such a routine by (gdb's amd64-linux-tdep.c), so that they see the signal's frame. */
const RESTORER = "__restore_rt";

const SIGNALS: Readonly<Record<number, string>> = {
  [SIGINT]: "SIGINT",
  [SIGTERM]: "SIGTERM",
  [SIGCHLD]: "SIGCHLD",
};

/** The label of a handler's routine: "sigreap", or "sigdown.SIGTERM" if the handler is for more than one signal. */
export const labelOf = (name: string, { signals }: Handler, signo: number): string =>
  signals.length > 1 ? `${name}.${SIGNALS[signo] ?? signo}` : name;

/** What the words of init.ts stand for on one architecture. */
class Translator {
  /** Texts, each once. */
  readonly texts: Part[] = [];
  /** How many places main stays at. */
  #rests = 0;
  readonly #architecture: Architecture;
  readonly #lineOf: (line: number) => string;
  readonly #handlers: Readonly<Record<string, Handler>>;

  constructor(
    architecture: Architecture,
    handlers: Readonly<Record<string, Handler>>,
    lineOf: (line: number) => string,
  ) {
    this.#architecture = architecture;
    this.#handlers = handlers;
    this.#lineOf = lineOf;
  }

  systemCall(name: SystemCall, values: readonly Value[], reason: string): Step {
    return { systemCall: this.#architecture.systemCalls[name], values, reason };
  }

  /** The label of a text. */
  #text(data: Uint8Array): string {
    const known = this.texts.find((part) => "data" in part && keyOf([...part.data]) === keyOf([...data]));
    if (known !== undefined) return known.label;
    const label = `text.${this.texts.length + 1}`;
    this.texts.push({ label, data });
    return label;
  }

  write(fd: number, data: Uint8Array, reason: string): Step {
    return this.systemCall("write", [fd, { label: this.#text(data) }, data.length], reason);
  }

  /** The struct that the kernel takes: not libc's. */
  #structSigaction(handler: string, flags: number): Value {
    const { sigaction, hasRestorer, encoder } = this.#architecture;
    const fields = {
      sa_handler: [{ label: handler }],
      sa_flags: [hasRestorer ? flags | SA_RESTORER : flags],
      sa_restorer: [hasRestorer ? { label: RESTORER } : 0],
      sa_mask: Array<number>(SIZEOF_SIGSET / encoder.wordSize).fill(0),
    };
    return { words: sigaction.flatMap((field) => fields[field]) };
  }

  /** A call of main. */
  call(call: Call, line: number): Step[] {
    const reason = this.#lineOf(line);
    switch (call.word) {
      case "argv.includes":
        return []; // the branch asks
      case "getpid":
        return [this.systemCall("getpid", [], reason)];
      case "printf":
      case "fprintf":
        return [this.write(call.stream, ascii(call.text), reason)];
      case "sigaction": {
        const handler = this.#handlers[call.handler];
        const label = handler === undefined ? call.handler : labelOf(call.handler, handler, call.signo);
        const act = this.#structSigaction(label, call.sa_flags);
        return [this.systemCall("rt_sigaction", [call.signo, act, 0, SIZEOF_SIGSET], reason)];
      }
    }
  }

  /** The calls of a handler. */
  handler(calls: readonly HandlerCall[], label: string, lineOf: (word: string) => string): Step[] {
    return calls.flatMap((call, index) => {
      const again = `${label}.${index + 1}`;
      const reason = lineOf(call.word);
      const [first, second, third] = call.arguments;
      const integer = (argument: typeof first) => (typeof argument === "number" ? argument : 0);
      const step = {
        _exit: () => this.systemCall("exit_group", [integer(first)], reason),
        waitpid: () => this.systemCall("wait4", [integer(first), integer(second), integer(third), 0], reason),
        write: () => this.write(integer(first), second instanceof Uint8Array ? second : ascii(""), reason),
      }[call.function]();
      return call.whilePositive
        ? [{ label: again }, step, { jump: again, when: "positive", reason }]
        : [step];
    });
  }

  /** Where main stays: with a reaper where SIGCHLD is caught, and so maybe at more than one place. */
  rest(reaper: (label: string) => readonly Step[], line: number): Step[] {
    const suffix = this.#rests > 0 ? `.${this.#rests + 1}` : "";
    this.#rests++;
    const [dumpable, pause] = [`dumpable${suffix}`, `pause${suffix}`];
    const [number, values] = this.#architecture.pause;
    const reason = this.#lineOf(line);
    const sealed = "not in pause.c: where PID 1 is not root, no other process may look into it";
    return [
      this.systemCall("geteuid", [], sealed),
      { jump: dumpable, when: 0, reason: sealed },
      this.systemCall("prctl", [PR_SET_DUMPABLE, SUID_DUMP_DISABLE], sealed),
      { label: dumpable },
      ...reaper(`reap${suffix}`).map((step) =>
        "label" in step ? step : { ...step, reason: NOT_YET_REAPED },
      ),
      { label: pause },
      { systemCall: number, values, reason },
      { jump: pause, reason },
    ];
  }
}

const NOT_YET_REAPED = "not in pause.c: what died before SIGCHLD was caught is reaped at once";

/** The source that a listing quotes. */
export interface Source {
  readonly name: string;
  readonly lines: readonly string[];
}

/**
 * The parts of the program: main first, then handlers, the restorer and texts.
 *
 * A subtree that main can reach in more than one way is written once.
 */
export function partsOf(
  tree: Node,
  handlers: Readonly<Record<string, Handler>>,
  architecture: Architecture,
  source: Source,
): Part[] {
  const quote = (line: number) => `${source.name}:${line}  ${source.lines[line - 1]?.trim() ?? ""}`;
  /** The line of a handler that has this word. */
  const quoteHandler = (name: string) => (word: string) => {
    const start = source.lines.findIndex((line) => line.startsWith(`const ${name} `));
    const offset = source.lines.slice(start).findIndex((line) => line.includes(`${word}(`));
    if (start < 0 || offset < 0) throw new Error(`${source.name}: no ${word} in ${name}`);
    return quote(start + offset + 1);
  };
  const translator = new Translator(architecture, handlers, quote);

  const installed = new Map<string, Part>();
  const stepsOf = (name: string, signo: number, label: string) =>
    translator.handler(handlers[name]?.calls(signo) ?? [], label, quoteHandler(name));
  const install = (name: string, signo: number) => {
    const handler = handlers[name];
    if (handler === undefined) return;
    const label = labelOf(name, handler, signo);
    if (installed.has(label)) return;
    const steps = stepsOf(name, signo, label);
    const ends = handler.calls(signo).at(-1)?.function === "_exit";
    const last: Step[] = ends ? [] : [{ return: true, reason: `the end of ${name}` }];
    installed.set(label, { label, steps: [...steps, ...last] });
  };

  const main: Step[] = [];
  const labels = new Map<string, string>();
  const written = new Set<string>();
  const label = (node: Node): string => {
    const key = keyOf(node);
    const known = labels.get(key) ?? ("exit" in node ? `exit.${node.exit}` : `main.${labels.size + 1}`);
    labels.set(key, known);
    return known;
  };
  const pending: Node[] = [tree];
  for (let first = pending.shift(); first !== undefined; first = pending.shift()) {
    if (written.has(keyOf(first))) continue;
    for (let node: Node | undefined = first; node !== undefined; ) {
      if (written.has(keyOf(node))) {
        main.push({ jump: label(node) });
        break;
      }
      written.add(keyOf(node));
      main.push({ label: label(node) });
      if ("exit" in node) {
        main.push(translator.systemCall("exit_group", [node.exit], `main returns ${node.exit}`));
        break;
      }
      if (!("call" in node)) {
        const { restWith } = node;
        const reaper = (as: string) => (restWith === undefined ? [] : stepsOf(restWith, SIGCHLD, as));
        main.push(...translator.rest(reaper, node.line));
        break;
      }
      main.push(...translator.call(node.call, node.line));
      if (node.call.word === "sigaction") install(node.call.handler, node.call.signo);
      const otherwise: Node | undefined = node.branches.at(-1)?.node;
      for (const branch of node.branches) {
        if (branch.when === undefined || keyOf(branch.node) === keyOf(otherwise)) continue;
        const reason = quote(node.line);
        const jump = label(branch.node);
        if (node.call.word === "argv.includes") main.push({ jump, whenArgument: node.call.argument, reason });
        else if (branch.when !== "argument") main.push({ jump, when: branch.when, reason });
        pending.push(branch.node);
      }
      node = otherwise;
    }
  }
  const restorer: Part = {
    label: RESTORER,
    steps: [translator.systemCall("rt_sigreturn", [], "where a handler returns to, which libc would bring")],
  };
  return [
    { label: "main", steps: main },
    ...installed.values(),
    ...(architecture.hasRestorer ? [restorer] : []),
    ...translator.texts,
  ];
}
