/**
 * Random input, the same in every run. A failure names the seed of its case: with that one as SEED, it is the first.
 */
const SEED = 20261124;

/** Numbers from 0 up to 1 that only the seed decides (mulberry32). */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What one case draws from its seed. */
export class Dice {
  readonly #next: () => number;

  constructor(seed: number) {
    this.#next = random(seed);
  }

  chance(probability: number): boolean {
    return this.#next() < probability;
  }

  int(least: number, most: number): number {
    return least + Math.floor(this.#next() * (most - least + 1));
  }

  /** An integer of this many bits, up to 53, of which the highest is set. */
  ofBits(count: number): number {
    if (count <= 0) return 0;
    const bits = this.int(0, 2 ** 21 - 1) * 2 ** 32 + this.int(0, 2 ** 32 - 1);
    return 2 ** (count - 1) + (bits % 2 ** (count - 1));
  }

  pick<T>(values: readonly T[]): T {
    return values[this.int(0, values.length - 1)] as T;
  }

  list<T>(least: number, most: number, make: () => T): T[] {
    return Array.from({ length: this.int(least, most) }, make);
  }

  /** Characters of one byte each. */
  text(most: number, least = 0, lowest = 0, highest = 255): string {
    return String.fromCharCode(...this.list(least, most, () => this.int(lowest, highest)));
  }
}

export async function cases(count: number, run: (dice: Dice) => void | Promise<void>): Promise<void> {
  for (let seed = SEED; seed < SEED + count; seed++) {
    try {
      await run(new Dice(seed));
    } catch (error) {
      throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error });
    }
  }
}
