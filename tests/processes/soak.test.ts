import { expect } from "bun:test";
import { soak, unharmed } from "../../bench/soak.ts";
import { needing } from "../helpers/expect.ts";
import { programs } from "../helpers/programs.ts";
import { CC } from "../helpers/tools.ts";

const cc = needing(CC);

cc.test(
  "half a minute of random load on each program: every orphan is reaped, and nothing grows",
  async () => {
    const all = await Promise.all(
      programs.map(async (program) => [program.name, await soak(program, 30, 20261124)] as const),
    );
    for (const [name, figures] of all)
      expect([name, unharmed(figures), figures]).toEqual([name, true, figures]);
  },
);
