import { expect, test } from "bun:test";
import { describeEach, expectTerminates, needing } from "../helpers/expect.ts";
import { Pod } from "../helpers/pod.ts";
import { childrenOf, status, until } from "../helpers/process.ts";
import { compile } from "../helpers/programs.ts";
import { untilAtRest } from "../helpers/rest.ts";
import { CC } from "../helpers/tools.ts";

const cc = needing(CC);
const MAKERS = 4;
const EACH = 12_500;

describeEach((program) => {
  cc.test("50,000 orphans in every order of death, under a storm of SIGCHLD", async () => {
    const orphans = compile("orphans");
    await using pod = await Pod.atRest(program);
    // From inside it cannot hit anyone else, and it ends with the pod.
    const forever = ["sh", "-c", "while kill -CHLD 1; do :; done"];
    // The shell is nsenter's child, and goes with it.
    const storm = Bun.spawn(pod.inside("setpriv", "--pdeathsig", "KILL", ...forever), { stderr: "ignore" });
    const makers = Bun.spawn(pod.inside(orphans, String(MAKERS), String(EACH)));
    expect(await makers.exited).toBe(0);
    await until(
      "nothing but PID 1",
      () => childrenOf(pod.pid).length === 0 && pod.others().length === 0,
      pod,
    );
    expect(status(pod.pid, "State")).not.toBe("");
    storm.kill();
    await storm.exited;
    await untilAtRest(pod, program);
    await expectTerminates(pod);
  });

  test("no zombie is left by what everyone has: shells that leave their children behind", async () => {
    await using pod = await Pod.atRest(program);
    expect(pod.exec("sh", "-c", 'for i in $(seq 200); do sh -c "sleep 0.01 &"; done').exitCode).toBe(0);
    await until("nothing but PID 1", () => pod.others().length === 0, pod);
    await expectTerminates(pod);
  });
});
