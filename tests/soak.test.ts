import { expect, test } from "bun:test";
import { soak, unharmed } from "../bench/soak.ts";
import { CC, needs, pause } from "./host.ts";

const cc = needs(CC);

test.skipIf(cc.skip)(
  cc.name("half a minute of random load: every orphan is reaped, and nothing grows"),
  async () => {
    const figures = await soak([pause], 30, 20261124);
    expect([unharmed(figures), figures]).toEqual([true, figures]);
  },
);
