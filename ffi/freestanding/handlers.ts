/**
 * The handlers that a program installs, and what each does.
 */
import {
  type Choice,
  explore,
  handlerProgram,
  type Installed,
  MAX_REPEATS,
  type Node,
  type Trace,
  Unsupported,
  type Watch,
} from "../explore.ts";
import type { Handler, SignalSafe } from "../libc.ts";
import { confirmed, LOOP, LOOP_AGAIN, MANY } from "./confirm.ts";
import { type Blame, here, isStatus, STATUS, wrong } from "./refusal.ts";
import { only } from "./world.ts";

/** Paths of a handler that are followed: the hosted build follows them at every start. */
const MAX_PATHS = 16;

export const NO_MEMORY = "a handler has no memory of its own";

/** Every handler that was seen so far. */
export class Handlers {
  readonly installed: Installed[] = [];
  /** Of each name, the nodes: what is one in the listing stands at one place. */
  readonly #known = new Map<string, Node[]>();
  readonly #blame: Blame;

  constructor(blame: Blame) {
    this.#blame = blame;
  }

  /** What a handler does for a signal. One that is known already, and does the same, is looked at more briefly. */
  install(handler: Handler, signo: number, name = handler.name): Installed {
    const find = (root: Node) => this.installed.find((one) => one.name === name && one.root === root);
    if (this.installed.some((one) => one.name === name && one.signo === signo)) {
      const same = find(this.#rootOf(handler, signo, name, true));
      if (same !== undefined) return same;
    }
    const root = this.#rootOf(handler, signo, name, false);
    const one = find(root) ?? { name, signo, root };
    if (!this.installed.includes(one)) this.installed.push(one);
    return one;
  }

  #rootOf(handler: Handler, signo: number, name: string, isBrief: boolean): Node {
    const nodes = this.#known.get(name) ?? [];
    this.#known.set(name, nodes);
    this.#blame.isHandler = true;
    const brief = runOf(handler, signo, { loop: LOOP_AGAIN });
    const run = isBrief ? brief : runOf(handler, signo, { loop: LOOP, here, wrong });
    const why = () => `does something else when it is run again: ${NO_MEMORY}`;
    const confirmation = { run, again: brief, why, often: isBrief ? LOOP_AGAIN : MANY, maxPaths: MAX_PATHS };
    const root = this.#blame.on(name, () => explore(confirmed(confirmation, nodes), nodes));
    this.#blame.isHandler = false;
    return root;
  }
}

/** How a handler is run once. */
function runOf(handler: Handler, signo: number, watch: Omit<Watch, "most">): (choice: Choice) => Trace {
  let returned: unknown;
  const keeping: Handler = (words, signo) => {
    returned = handler(words, signo);
  };
  const guard = (words: SignalSafe, refuse: (reason: string) => never) => {
    const _exit = (status: number) =>
      isStatus(status) ? words._exit(status) : refuse(`gives _exit ${status}, and ${STATUS}`);
    return only({ ...words, _exit }, (word) => refuse(`uses ${word}, which is not async-signal-safe here`));
  };
  const { run } = handlerProgram(keeping, signo, { most: MAX_REPEATS, ...watch }, guard);
  return (choice) => {
    const trace = run(choice);
    // What an async function calls after it has waited would be lost, and a generator calls nothing.
    if (typeof returned === "object" && returned !== null)
      throw new Unsupported("returns an object: a handler is no async function, and no generator");
    return trace;
  };
}
