/**
 * The main job, to be watched: dist/pause as PID 1 of a new PID namespace, and orphans that it reaps.
 */
import { Pod } from "../tests/helpers/pod.ts";
import { until } from "../tests/helpers/process.ts";
import { hosted } from "../tests/helpers/programs.ts";

const ORPHANS = 300;
const MAKE_ORPHANS = `for i in $(seq ${ORPHANS}); do (sleep 1 &) >/dev/null 2>&1; done`;

/** Prints how many processes the pod has besides PID 1, and how many of them are zombies. */
function show(when: string, pod: Pod): void {
  const states = pod.others();
  const zombies = states.filter((state) => state === "Z").length;
  console.log(
    `  ${when.padEnd(28)} processes besides PID 1: ${states.length - zombies}, zombies: ${zombies}`,
  );
}

/** Makes orphans in a pod and shows its process table before, meanwhile and when the last of them has died. */
async function demonstrate(pod: Pod): Promise<void> {
  show("before", pod);
  pod.exec("sh", "-c", MAKE_ORPHANS);
  show(`${ORPHANS} orphans later`, pod);
  await until("the death of all orphans", () => pod.others().every((state) => state === "Z"));
  show("when all of them have died", pod);
}

async function main(): Promise<number> {
  console.log("sleep as PID 1 of a new PID namespace, which is what a pod without a pause container has:");
  await using without = await Pod.start(["sleep", "infinity"]);
  await demonstrate(without);

  console.log("dist/pause as PID 1 of a new PID namespace:");
  await using pod = await Pod.atRest(hosted);
  await demonstrate(pod);
  const zombies = pod.others().length;
  const { stderr, exitCode } = await pod.end("SIGTERM");
  console.log(`  SIGTERM: it says "${stderr.trim()}" and ends with exit code ${exitCode}`);
  return zombies === 0 && exitCode === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  const reason = (error instanceof Error ? error.message : String(error)).trim();
  console.error(
    `This needs PID namespaces, and they are not permitted here (${reason}): run it as root, or allow user ` +
      "namespaces (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0).",
  );
  process.exitCode = 1;
}
