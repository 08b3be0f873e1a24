import { expect } from "bun:test";
import { soak, unharmed } from "../../bench/soak.ts";
import { describeEach, expectTerminates, needing } from "../helpers/expect.ts";
import { NAMESPACES, Pod } from "../helpers/pod.ts";
import { compile, programs } from "../helpers/programs.ts";
import { untilAtRest } from "../helpers/rest.ts";
import { CC } from "../helpers/tools.ts";

const { test } = needing(NAMESPACES);

const cc = needing(NAMESPACES, CC);

describeEach((program) => {
  cc.test("50,000 orphans in every order of death, under a storm of SIGCHLD", async () => {
    await using pod = await Pod.atRest(program);
    // From inside it cannot hit anyone else, and it ends with the pod: the shell is nsenter's child, and goes with it.
    const forever = ["sh", "-c", "while kill -CHLD 1; do :; done"];
    const storm = Bun.spawn(pod.inside("setpriv", "--pdeathsig", "KILL", ...forever), { stderr: "ignore" });
    const makers = Bun.spawn(pod.inside(compile("orphans"), "4", "12500"));
    expect(await makers.exited).toBe(0);
    await pod.untilAlone();
    storm.kill();
    await storm.exited;
    await untilAtRest(pod, program);
    await expectTerminates(pod);
  });

  test("no zombie is left by what everyone has: shells that leave their children behind", async () => {
    await using pod = await Pod.atRest(program);
    expect(pod.exec("sh", "-c", 'for i in $(seq 200); do sh -c "sleep 0.01 &"; done').exitCode).toBe(0);
    await pod.untilAlone();
    await expectTerminates(pod);
  });
});

cc.test("half a minute of random load on each program: every orphan is reaped, and nothing grows", () =>
  Promise.all(
    programs.map(async (program) => {
      const figures = await soak(program, 30, 20261124);
      expect([program.name, unharmed(figures), figures]).toEqual([program.name, true, figures]);
    }),
  ),
);
