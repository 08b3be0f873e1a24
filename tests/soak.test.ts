import { expect, test } from "bun:test";
import { soak, unharmed } from "../bench/soak.ts";
import { programs } from "./helpers/programs.ts";
import { CC, needs } from "./helpers/tools.ts";

const cc = needs(CC);

test.skipIf(cc.skip)(
  cc.name("half a minute of random load on each program: every orphan is reaped, and nothing grows"),
  async () => {
    const all = await Promise.all(
      programs.map(async (program) => [program.name, await soak(program, 30, 20261124)] as const),
    );
    for (const [name, figures] of all)
      expect([name, unharmed(figures), figures]).toEqual([name, true, figures]);
  },
);
