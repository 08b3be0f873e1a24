/**
 * Every path of a program: main's, in a world of its own for each run, and those of the handlers that it installs.
 */
import {
  AGAIN,
  type Choice,
  explore,
  type Installed,
  type Node,
  type Trace,
  Unsupported,
} from "../explore.ts";
import { confirmed, differenceOf, MANY, type Way } from "./confirm.ts";
import { Handlers } from "./handlers.ts";
import { MAIN, MainRun, type MainTrace } from "./main.ts";
import { Blame } from "./refusal.ts";
import { patiently, type Source } from "./world.ts";

/** Paths of main that are followed. Each takes two milliseconds. */
const MAX_PATHS = 1024;

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
  const blame = new Blame(source);
  const handlers = new Handlers(blame);
  const runs = new WeakMap<Trace, MainTrace>();
  const run = (choice: Choice, way?: Way): Trace => {
    const like = way?.like && runs.get(way.like);
    const found = patiently((timeout) =>
      new MainRun(blame, handlers, choice, way, like).run(source, way?.isStrict ?? false, timeout),
    );
    runs.set(found.trace, found);
    return found.trace;
  };
  const why = (choice: Choice, trace: Trace): string => {
    const differs = (way: Way) => differenceOf(trace, run(choice, way)) !== undefined;
    let because = "it depends on names, or on not being in strict mode";
    if (differs({})) because = "it is not a function of the answers to its calls";
    else if (differs({ like: trace }))
      because = "a handler, or what argv.some is given, changes what main does";
    return `goes another way when it is run again: ${because}`;
  };
  // As the hosted build has it: strict, with other names, and with handlers and arguments looked at in another order.
  const again = (choice: Choice, like: Trace) => run(choice, { like, isStrict: true });

  const nodes: Node[] = [];
  const main = blame.on(MAIN, () => {
    const root = explore(confirmed({ run, again, why, often: MANY, maxPaths: MAX_PATHS }, nodes), nodes);
    for (const node of nodes)
      if ("call" in node && node.call.word === "pause" && node.branches[0] !== AGAIN)
        throw new Unsupported("goes on after pause(), which it has to call forever", node.at);
    return root;
  });
  const isInstalled = (handler: Installed) =>
    nodes.some((node) => "call" in node && node.call.word === "sigaction" && node.call.handler === handler);
  return { main, handlers: handlers.installed.filter(isInstalled) };
}
