/**
 * What argv.some looks for, found out by trying.
 */
import type { Argument } from "../libc.ts";

/** What argv.some passes, as under Bun: an address, which is another one in every run. */
const ADDRESSES = [0x7ffc_1234_5678, 0x7ffd_8765_4321] as Argument[];

const NO_SEARCH = "gives argv.some what is not strcasecmp(argument, text) === 0";

/** Arguments that hardly anything is compared with: the first of all, one of the last, and one between. */
const OTHERS = ["", "x", "\x7f"];

/** The arguments of a run, as its argv.some and strcasecmp see them. */
export class Search {
  /** The argument that argv.some looks at, if it does. */
  asked: string | undefined;
  #compared: string[] = [];
  readonly #address: Argument;
  readonly #refuse: (does: string) => never;

  constructor(isFirst: boolean, refuse: (does: string) => never) {
    this.#address = ADDRESSES[isFirst ? 0 : 1] as Argument;
    this.#refuse = refuse;
  }

  /** The texts that an argument is wanted for: what it is compared with, tried with each and with what is nearly it. */
  textsOf(isWanted: (argument: Argument) => boolean): string[] {
    const texts: string[] = [];
    const others = [...OTHERS];
    for (const argument of others) {
      this.#compared = [];
      this.#isFound(isWanted, argument);
      for (const text of this.#compared)
        if (!texts.some((known) => isEqual(known, text))) {
          texts.push(text);
          others.push(text, ...nearMisses(text));
        }
    }
    for (const argument of others) this.check(isWanted, argument, texts);
    return texts;
  }

  /** Checks that an argument is wanted if it is one of these texts, and else is not. */
  check(isWanted: (argument: Argument) => boolean, argument: string, texts: readonly string[]): void {
    if (this.#isFound(isWanted, argument) !== texts.some((text) => isEqual(text, argument)))
      this.#refuse(NO_SEARCH);
  }

  strcasecmp(argument: Argument, text: string): number {
    const { asked } = this;
    if (argument !== this.#address || asked === undefined)
      return this.#refuse("gives strcasecmp what is not the argument that argv.some looks at");
    if (typeof text !== "string") return this.#refuse(`gives strcasecmp ${text}`);
    this.#compared.push(text);
    return isEqual(asked, text) ? 0 : lower(asked) < lower(text) ? -1 : 1;
  }

  #isFound(isWanted: (argument: Argument) => boolean, argument: string): boolean {
    this.asked = argument;
    try {
      return isWanted(this.#address);
    } finally {
      this.asked = undefined;
    }
  }
}

const lower = (text: string) => text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
const isEqual = (one: string, other: string) => lower(one) === lower(other);

/** Arguments that are nearly this one, before it and behind. */
function nearMisses(text: string): string[] {
  const most = text.slice(0, -1);
  const last = text.charCodeAt(text.length - 1);
  return text === ""
    ? [" "]
    : [most, `${text} `, ...[last - 1, last + 1].map((code) => most + String.fromCharCode(code))];
}
