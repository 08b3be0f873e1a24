/**
 * The images in the real runtimes, this machine's and Debian 13's (kernels/node.test.ts has the newest): crun, runc,
 * podman, and containerd by its Container Runtime Interface.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  EXAMPLE,
  expectAtRest,
  expectPair,
  expectPodmanPair,
  limits,
  PROFILES,
  restrictions,
} from "../helpers/containers.ts";
import { DebianMachine, machineNeeds } from "../helpers/debian.ts";
import { MESSAGE, needing } from "../helpers/expect.ts";
import { application, images, TESTED, tested } from "../helpers/images.ts";
import { type Place, ThisMachine } from "../helpers/places.ts";
import { must, output, status } from "../helpers/process.ts";
import { freestanding, root } from "../helpers/programs.ts";
import { untilAtRest } from "../helpers/rest.ts";
import { type Containerd, type Inside, podmanOf, rootOf, startContainerd } from "../helpers/runtimes.ts";
import { ROOT } from "../helpers/tools.ts";

const RUNTIMES = {
  ...{ podman: "podman", crun: "crun", runc: "runc", containerd: "containerd" },
  "/usr/share/containers/seccomp.json": "golang-github-containers-common",
};
/** Elsewhere only what depends most on the runtime is tested once more. */
const PLACES = {
  "this machine": { needed: [RUNTIMES], start: () => new ThisMachine().ready(), of: tested, isAll: true },
  "Debian 13": {
    needed: machineNeeds("trixie"),
    start: () => DebianMachine.start("trixie"),
    of: images,
    isAll: false,
  },
};

for (const [where, { needed, start, of, isAll }] of Object.entries(PLACES))
  needing(ROOT, ...TESTED, ...needed).describe(where, () => {
    const stack = new AsyncDisposableStack();
    let place: Place;
    let podman: Inside;
    const run = (...args: readonly string[]) => must(...podman(...args));
    const archives = [...of.map(({ archive }) => archive), application.archive];

    beforeAll(async () => {
      place = stack.use(await start());
      copyFileSync(EXAMPLE, join(place.folder, "seccomp.json"));
      // The example is lines of [engine].
      const engine = readFileSync(join(root, "examples/podman/containers.conf"), "utf8");
      podman = podmanOf(place, "podman", { engine });
      stack.defer(() => void output(podman("pod", "rm", "--force", "--all")));
      for (const archive of archives) run("load", "--quiet", "--input", place.path(archive));
    });
    afterAll(() => stack.disposeAsync());

    if (isAll)
      describe("crun and runc", () => {
        beforeAll(() => {
          for (const { program, name } of of) rootOf(podman, name, join(place.folder, program.name));
        });

        const bundles = () => ({ folder: place.folder, inside: place.inside.bind(place) });
        for (const { program } of of) {
          for (const { name, run } of restrictions)
            test(`${program.name}, ${name}`, () => run(bundles(), program));
          for (const { name, run } of limits(program)) test(`${program.name}, ${name}`, () => run(bundles()));
        }
      });

    describe("podman", () => {
      for (const { program, name: image } of of)
        for (const [profile, optionsOf] of Object.entries(PROFILES)) {
          const options = () => optionsOf(place.path(join(place.folder, "seccomp.json")));

          test(`${program.name}: a pod of two, ${profile}: PID 1 of both, 1,000 orphans and a killed exec leave no zombie`, async () => {
            // The example's configuration names the freestanding image.
            const infra = program === freestanding ? [] : ["--infra-image", image];
            // It is the pause container's profile alone: the others keep the default, without which they would not run.
            const create = ["--share", "pid,ipc,net,uts", "--network=none", ...infra, ...options()];
            await expectPodmanPair(podman, create, program, 1000);
            expect(run("ps", "--all", "--quiet")).toBe("");
          });

          if (!isAll) continue;
          test(`${program.name}: run and stop, ${profile}: it ends by SIGTERM, with 0`, async () => {
            run("run", "--detach", "--name", "alone", "--network=none", ...options(), image);
            // A PID 1 that has no handler yet does not notice it (LIMITS.md).
            const pid = Number(run("inspect", "--format", "{{.State.Pid}}", "alone"));
            await untilAtRest({ pid }, program);
            run("stop", "--time", "60", "alone");
            expect(run("inspect", "--format", "{{.State.ExitCode}}", "alone")).toBe("0\n");
            expect(output(podman("logs", "alone")).stderr).toBe(MESSAGE);
            run("rm", "alone");
          });

          test(`${program.name}: run IMAGE -v, ${profile}: prints the version`, () => {
            expect(run("run", "--rm", "--network=none", ...options(), image, "-v")).toBe(program.version);
          });
        }
    });

    for (const { program, archive, name: image } of of)
      describe(`containerd, ${program.name}`, () => {
        let containerd: Containerd;

        beforeAll(async () => {
          const options = { image, archives: [archive, application.archive] };
          containerd = await startContainerd(place, `containerd-${program.name}`, options);
        });
        afterAll(() => containerd?.[Symbol.asyncDispose]());

        test("a pod of two: PID 1 of both, orphans and a timed-out ExecSync leave no zombie", async () => {
          const pair = await containerd.sandboxes.run("pair");
          await expectPair(pair, program, 500);
          await pair.remove();
          expect(status(pair.pid, "State")).toBe("");
        });

        if (!isAll) return;
        test("50 sandboxes at once come to rest, and go", async () => {
          const names = Array.from({ length: 50 }, (_, index) => `many-${index}`);
          const many = await Promise.all(names.map((name) => containerd.sandboxes.run(name)));
          for (const { pid } of many) await expectAtRest(pid, program);
          await Promise.all(many.map(({ remove }) => remove()));
        });
      });
  });
