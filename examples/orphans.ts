/**
 * The main job, to be watched: a PID 1 that does not reap, both builds of pause that do, and what that proves.
 */
import { Pod } from "../tests/helpers/pod.ts";
import { until } from "../tests/helpers/process.ts";
import { freestanding, hosted, type Program } from "../tests/helpers/programs.ts";
import { missing } from "../tests/helpers/tools.ts";

const ORPHANS = 300;
// Says when one more was made.
const MAKE_ORPHANS = `for i in $(seq ${ORPHANS}); do (sleep 1 >/dev/null 2>&1 &); echo; done`;

/** On a terminal, a line that the next one replaces. */
function progress(text: string): void {
  if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${text}`);
}

/** Says how many processes the pod has besides PID 1, and returns how many of them are zombies. */
function show(when: string, pod: Pod): number {
  const states = pod.others();
  const zombies = states.filter((state) => state === "Z").length;
  progress("");
  console.log(
    `  ${when.padEnd(26)} ${String(states.length - zombies).padStart(4)} running, ${zombies} zombies`,
  );
  return zombies;
}

/** Makes orphans in a pod and shows its processes meanwhile and when the last of them has died. */
async function demonstrate(pod: Pod): Promise<number> {
  const maker = Bun.spawn(pod.inside("sh", "-c", MAKE_ORPHANS), { stdio: ["ignore", "pipe", "ignore"] });
  let made = 0;
  for await (const chunk of maker.stdout) {
    made += chunk.length;
    progress(`  ${made} of ${ORPHANS} orphans`);
  }
  await maker.exited;
  show(`${ORPHANS} orphans later`, pod);
  progress("  waiting for their death");
  await until("the death of all orphans", () => pod.others().every((state) => state === "Z"));
  return show("when all of them have died", pod);
}

/** Shows one build, and returns whether it did all that it is for. */
async function demonstrateBuild(program: Program): Promise<boolean> {
  console.log(`${program.name} pause as PID 1:`);
  await using pod = await Pod.atRest(program);
  const zombies = await demonstrate(pod);
  const { stderr, exitCode } = await pod.end("SIGTERM");
  console.log(`  SIGTERM: it says "${stderr.trim()}" and ends with exit code ${exitCode}`);
  return zombies === 0 && exitCode === 0;
}

async function main(): Promise<boolean> {
  console.log("sleep as PID 1 of a new PID namespace, as in a pod without a pause container:");
  let without = 0;
  {
    await using pod = await Pod.start(["sleep", "infinity"]);
    without = await demonstrate(pod);
  }
  const done = [await demonstrateBuild(freestanding), await demonstrateBuild(hosted)];
  const works = without > 0 && done.every(Boolean);
  console.log(
    works
      ? `Shown: sleep leaves every orphan in the process table as a zombie; both builds reap all ${ORPHANS}, and leave on SIGTERM with 0.`
      : "NOT shown: see above which of them left zombies, or did not end with 0.",
  );
  return works;
}

/** One line for what cannot be shown here, and what helps. */
function explain(reason: string): string {
  if (!reason.startsWith("unshare: ")) return reason;
  // A container hides parts of its /proc, and the kernel gives no new one to whoever has not the whole.
  if (process.getuid?.() === 0 || reason.includes("mount /proc"))
    return `PID namespaces cannot be made here (${reason}): run this outside of a container, or in a privileged one.`;
  const settings = "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0";
  return `PID namespaces are for root only here (${reason}): run this as root, or allow user namespaces (sysctl ${settings}).`;
}

try {
  const how = missing({ setpriv: "util-linux", unshare: "util-linux", nsenter: "util-linux" });
  if (how !== "") throw new Error(`This needs tools that are not here: ${how}`);
  if (!(await main())) process.exitCode = 1;
} catch (error) {
  progress("");
  const [reason = ""] = (error instanceof Error ? error.message : String(error)).split("\n");
  console.error(explain(reason));
  process.exitCode = 1;
}
