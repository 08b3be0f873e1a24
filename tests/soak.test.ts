import { expect, test } from "bun:test";
import { soak } from "../bench/soak.ts";
import { CC, needs, pause } from "./host.ts";

const cc = needs(CC);

test.skipIf(cc.skip)(
  cc.name("half a minute of random load: every orphan is reaped, and nothing grows"),
  async () => {
    const { orphansMade, orphansReaped, growth, exitCode } = await soak([pause], 30, 20261124);
    expect(orphansMade).toBeGreaterThan(0);
    expect(orphansReaped).toBe(orphansMade);
    expect(growth).toEqual({ memory: 0, mappings: 0, descriptors: 0, threads: 0 });
    expect(exitCode).toBe(0);
  },
);
