/**
 * That a program is a function of the answers to its calls, by running each of its paths again.
 */
import {
  AGAIN,
  type Choice,
  CLASSES,
  explore,
  isSame,
  isSameNode,
  LAST,
  MAX_REPEATS,
  type Node,
  type Program,
  type Trace,
  Unsupported,
} from "../explore.ts";

/** A call that comes again so often, and for the same answer, is a loop without an end; less often where it was one. */
export const LOOP = 1000;
export const LOOP_AGAIN = 20;
/** How often it comes again before it gets another answer. */
export const MANY = 1 << 16;

/** How a path is run again. Whatever it is, the program has to do the same. */
export interface Way {
  /** What it has to do: then its handlers are looked at when main has ended, and of its arguments only one that is found. */
  readonly like?: Trace;
  readonly isStrict?: boolean;
}

/** How a program is run, and what is asked of it. */
export interface Confirmation {
  readonly run: (choice: Choice, way?: Way) => Trace;
  /** Runs it in another way, in which it has to do the same. */
  readonly again: (choice: Choice, like: Trace) => Trace;
  /** Why it does not. */
  readonly why: (choice: Choice, trace: Trace) => string;
  /** How often a loop runs before it gets another answer. */
  readonly often: number;
  /** Paths that are followed. */
  readonly maxPaths: number;
}

/**
 * A program of which every path is run again: once in another way, and with the other answers of the same classes, one at
 * a time. Loops have no memory.
 */
export function confirmed({ run, again, why, often, maxPaths }: Confirmation, known: Node[]): Program {
  let paths = 0;
  let most = 1;
  const program: Program = {
    run: (choice) => run(choice),
    confirm(_, trace) {
      const { made, end } = trace;
      const product = made.reduce((product, { call }) => product * CLASSES[call.word].length, 1);
      most = Math.max(most, product);
      if (++paths > maxPaths) {
        const loop = made.find(
          ({ call }) => made.filter((other) => isSame(call, other.call)).length > MAX_REPEATS,
        );
        if (loop !== undefined)
          throw new Unsupported("does not end: a loop can be of one call only", loop.at);
        throw new Unsupported(
          `has too many paths: up to ${most} by its answers, and ${maxPaths} can be followed`,
        );
      }
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
export function differenceOf(one: Trace, other: Trace): number | undefined {
  const index = one.made.findIndex(({ call }, index) => !isSame(call, other.made[index]?.call ?? {}));
  if (index >= 0) return index;
  const isSameEnd =
    one.end === undefined || other.end === undefined ? one.end === other.end : isSameNode(one.end, other.end);
  return isSameEnd && one.made.length === other.made.length ? undefined : one.made.length - 1;
}
