/**
 * One run of main, in a world of its own.
 */
import { NULL, SIGCHLD } from "../constants.ts";
import { type Choice, type Installed, Recorder, type Trace } from "../explore.ts";
import { type Argument, type Handler, type Libc, type Main, type Stream, stderr, stdout } from "../libc.ts";
import { LOOP, LOOP_AGAIN, type Way } from "./confirm.ts";
import { type Handlers, NO_MEMORY } from "./handlers.ts";
import { type Blame, here, isStatus, STATUS, textOf, wrong } from "./refusal.ts";
import { Search } from "./search.ts";
import { only, runInNewWorld, type Source } from "./world.ts";

export const MAIN = "main";

/** Signals that glibc keeps for itself: its sigaction(3) fails for them (nptl(7)). */
const OF_LIBC: readonly number[] = [32, 33];

/** A run of main, and what each of its argv.some looked for. */
export interface MainTrace {
  readonly trace: Trace;
  readonly searched: readonly (readonly string[])[];
}

/** What a run is made of. */
export class MainRun {
  readonly #blame: Blame;
  readonly #handlers: Handlers;
  readonly #like: MainTrace | undefined;
  readonly #isFirst: boolean;
  readonly #recorder: Recorder;
  readonly #search: Search;
  readonly #searched: (readonly string[])[] = [];
  /** What is looked at when main has ended. */
  readonly #later: (() => void)[] = [];
  /** Whether SIGCHLD has a handler. */
  #reaps = false;

  /** @param like what it has to do, where it is run again */
  constructor(blame: Blame, handlers: Handlers, choice: Choice, way?: Way, like?: MainTrace) {
    this.#blame = blame;
    this.#handlers = handlers;
    this.#like = like;
    this.#isFirst = way === undefined;
    this.#search = new Search(this.#isFirst, (does) => this.#refuse(does));
    this.#recorder = new Recorder(choice, {
      most: LOOP,
      ...(this.#isFirst ? { loop: LOOP, here } : { loop: LOOP_AGAIN }),
      wrong: (call) => {
        this.#refuseHandler();
        if (this.#search.asked !== undefined) return `calls ${call.word} for each argument`;
        return this.#isFirst ? wrong(call) : undefined;
      },
    });
  }

  /** Runs the program. */
  run(source: Source, isStrict: boolean, timeout: number): MainTrace {
    const refuse = (does: string | Error) =>
      typeof does === "string" ? this.#refuse(does) : this.#recorder.refuse(does);
    this.#blame.who = "this file";
    this.#blame.isHandler = false;
    const trace = this.#recorder.record(() => {
      const script = isStrict ? source.strict : source.sloppy;
      runInNewWorld(script, timeout, (main) => this.#start(main), refuse);
      return refuse("gives start no main");
    });
    this.#blame.who = MAIN;
    return { trace, searched: this.#searched };
  }

  /** What start does with main. */
  #start(main: Main): never {
    if (typeof main !== "function") return this.#refuse("gives start no main");
    this.#blame.who = MAIN;
    let status: unknown;
    try {
      status = main(only(this.#words(), (word) => this.#refuse(`uses ${word}, which is no word of main`)));
    } finally {
      for (const look of this.#later.toReversed()) look();
    }
    const last = this.#recorder.made.at(-1)?.at;
    if (!isStatus(status))
      return this.#refuse(
        `returns ${textOf(status)}${last === undefined ? "" : " after this"}, and ${STATUS}`,
        last,
      );
    return this.#recorder.exit(status);
  }

  #words(): Libc {
    const write = (fd: Stream, text: string) => {
      this.#recorder.answer({ word: "write", fd, text });
    };
    return {
      argv: only<Libc["argv"]>({ some: (isWanted) => this.#some(isWanted) }, (name) =>
        this.#refuse(`uses argv.${name}, which is no word of main`),
      ),
      stderr,
      fprintf: write,
      getpid: () => this.#recorder.answer({ word: "getpid" }),
      pause: () => this.#recorder.answer({ word: "pause", reaps: this.#reaps }),
      printf: (text) => write(stdout, text),
      sigaction: (signo, act, oldact) => this.#sigaction(signo, act, oldact),
      strcasecmp: (argument, text) => this.#search.strcasecmp(argument, text),
    };
  }

  #some(isWanted: (argument: Argument) => boolean): boolean {
    this.#refuseHandler();
    const texts = this.#like?.searched[this.#searched.length] ?? this.#search.textsOf(isWanted);
    this.#searched.push(texts);
    const found = texts.find((text) => this.#recorder.answer({ word: "argument", text }) === 1);
    if (this.#like !== undefined && found !== undefined) this.#search.check(isWanted, found, texts);
    return found !== undefined;
  }

  #sigaction(...[signo, act, oldact]: Parameters<Libc["sigaction"]>): number {
    this.#refuseHandler();
    for (const field of Object.keys(act))
      if (field !== "sa_handler" && field !== "sa_flags")
        this.#refuse(`gives sigaction ${field}, which it does not have here`);
    if (oldact !== NULL) this.#refuse("gives sigaction an oldact that is not NULL");
    if (OF_LIBC.includes(signo)) return -1;
    const { sa_handler, sa_flags: flags = 0 } = act;
    const handler = typeof sa_handler === "number" ? sa_handler : this.#install(sa_handler, signo);
    const result = this.#recorder.answer({ word: "sigaction", signo, handler, flags });
    if (signo === SIGCHLD && result === 0) this.#reaps = typeof handler === "object";
    return result;
  }

  /** Looks at a handler when it is installed, and where main is run again, when it has ended: it has to be the same. */
  #install(handler: Handler, signo: number): Installed | number {
    if (typeof handler !== "function") return this.#refuse("gives sigaction what is no handler");
    if (this.#like === undefined) return this.#look(handler, signo);
    const before = this.#like.trace.made[this.#recorder.made.length]?.call;
    if (before?.word !== "sigaction" || typeof before.handler !== "object") return 0;
    const first = before.handler;
    const at = here();
    this.#later.push(() => {
      if (this.#look(handler, signo, first.name) !== first)
        this.#refuse(`installs ${first.name}, which later does something else: ${NO_MEMORY}`, at);
    });
    return first;
  }

  /** What a handler does. That it is refused holds even if main catches it. */
  #look(handler: Handler, signo: number, name?: string): Installed {
    try {
      return this.#handlers.install(handler, signo, name);
    } catch (error) {
      return this.#recorder.refuse(error as Error);
    }
  }

  #refuse(does: string, at?: Error): never {
    return this.#recorder.refuse(this.#blame.refused(does, at));
  }

  /** A handler sees the words of main where it is a function within main. */
  #refuseHandler(): void {
    if (this.#blame.isHandler) this.#refuse("calls a word of main here, and none is async-signal-safe");
  }
}
