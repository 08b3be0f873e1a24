import { expect, test } from "bun:test";
import { CC, childrenOf, compile, expectTerminates, needs, Pod, pause, status, until } from "./host.ts";

const cc = needs(CC);
const MAKERS = 4;
const EACH = 12_500;

test.skipIf(cc.skip)(
  cc.name("50,000 orphans in every order of death, under a storm of SIGCHLD"),
  async () => {
    const orphans = compile("orphans");
    await using pod = await Pod.resting(pause);
    const storm = Bun.spawn(["sh", "-c", `while kill -CHLD ${pod.pid}; do :; done`], { stderr: "ignore" });
    const makers = Bun.spawn(pod.inside(orphans, String(MAKERS), String(EACH)));
    expect(await makers.exited).toBe(0);
    await until("nothing but PID 1", () => childrenOf(pod.pid).length === 0 && pod.others().length === 0);
    expect(status(pod.pid, "State")).not.toBe("");
    storm.kill();
    await storm.exited;
    await until("PID 1 sleeps", () => status(pod.pid, "State").startsWith("S"));
    await expectTerminates(pod);
  },
);

test("no zombie is left by what everyone has: shells that leave their children behind", async () => {
  await using pod = await Pod.resting(pause);
  expect(pod.exec("sh", "-c", 'for i in $(seq 200); do sh -c "sleep 0.01 &"; done').exitCode).toBe(0);
  await until("nothing but PID 1", () => pod.others().length === 0);
  await expectTerminates(pod);
});
