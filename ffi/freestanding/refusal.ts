/**
 * What cannot be compiled, said in one line: where, who and why.
 */
import { type Call, Unsupported } from "../explore.ts";
import type { Source } from "./world.ts";

/** A program that cannot be compiled. The message says where, who and why. */
export class Refused extends Error {
  override name = "Refused";
}

/** signal.h. The hosted build has unmapped Bun's other stack when it rests. */
const SA_ONSTACK = 0x08000000;

/** Longer ones than an executable can be. */
const MAX_TEXT = 1 << 16;

/** Where the program is. */
export const here = () => new Error();

/** Whose code runs: that is who is to blame. */
export class Blame {
  /** The file itself, main, or a handler by its name. */
  who = "this file";
  isHandler = false;
  readonly #source: Source;

  constructor(source: Source) {
    this.#source = source;
  }

  refused(does: string, at: Error | undefined = here()): Refused {
    return new Refused(`${this.#source.placeOf(at) ?? this.#source.name}: ${this.who} ${does}`);
  }

  /** Runs what is this one's, and says of its errors who did it and where. */
  on<T>(who: string, what: () => T): T {
    const before = this.who;
    this.who = who;
    try {
      const result = what();
      this.who = before;
      return result;
    } catch (error) {
      if (error instanceof Refused) throw error;
      if (error instanceof Unsupported) throw this.refused(error.message, error.at);
      throw this.refused(`throws ${textOf(error)}`, error as Error | undefined);
    }
  }
}

/** A value of the program's, in one line. */
export function textOf(value: unknown): string {
  try {
    return String(value).replace(/\s+/g, " ");
  } catch {
    return "an object";
  }
}

export const STATUS = "an exit status is 0 to 255";
export const isStatus = (value: unknown): value is number =>
  typeof value === "number" && Number.isInteger(value) && value >= 0 && value < 256;

/** What no call may be given, in either build. */
export function wrong(call: Call): string | undefined {
  if (call.word === "sigaction" && call.flags & SA_ONSTACK)
    return "gives sigaction SA_ONSTACK, and there is no other stack";
  const word = call.word === "argument" ? "strcasecmp" : call.word;
  for (const [field, value] of Object.entries(call)) {
    if (typeof value === "number" && !Number.isSafeInteger(value))
      return `gives ${word} the ${field} ${value}`;
    if (field === "text" && typeof value === "string" && value.length > MAX_TEXT)
      return `gives ${word} a text of ${value.length} characters`;
    if (field === "text" && !(typeof value === "string" && /^[\0-\x7f]*$/.test(value)))
      return `gives ${word} what is no text of ASCII characters: ${JSON.stringify(value)}`;
    if (value === undefined) return `gives ${word} no ${field}`;
  }
  return undefined;
}
