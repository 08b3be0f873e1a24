/**
 * Every architecture and size of a page under its own kernel: the builds beside the C program, and the freestanding one
 * as the machine's own init.
 */
import { describe, expect, test } from "bun:test";
import { version } from "../../package.json" with { type: "json" };
import { architectures } from "../helpers/architectures.ts";
import { missingDebian } from "../helpers/debian.ts";
import { MESSAGE } from "../helpers/expect.ts";
import { needs } from "../helpers/tools.ts";
import { boot, folderOf, type Kernel, kernels, type Report } from "./kernels.ts";

const how = missingDebian({
  "qemu-system-x86_64": "qemu-system-x86",
  "qemu-system-aarch64": "qemu-system-arm",
  "qemu-system-ppc64": "qemu-system-ppc",
  "qemu-system-s390x": "qemu-system-misc",
  cpio: "cpio",
  mmdebstrap: "mmdebstrap",
  setpriv: "util-linux",
  ...Object.fromEntries(
    architectures
      .flatMap(({ needed }) => Object.entries(needed.run))
      .filter(([tool]) => tool.endsWith("-gcc")),
  ),
});

const boots = new Map<Kernel, Promise<Report>>();

/** Boots two at a time: while one is waited for, the next one runs. */
function reportOf(kernel: Kernel): Promise<Report> {
  const next = kernels[kernels.indexOf(kernel) + 1];
  for (const one of next === undefined ? [kernel] : [kernel, next])
    if (!boots.has(one)) {
      const report = boot(one);
      report.catch(() => {}); // who waits for it fails
      boots.set(one, report);
    }
  return boots.get(kernel) ?? boot(kernel);
}

/** What stdout has of a version. */
const VERSIONS: Readonly<Record<string, string>> = { reference: `pause.c ${version}\n` };

/** What all programs have to do alike. */
async function doneBy(program: string, kernel: Kernel) {
  const lines = (await reportOf(kernel)).of(program);
  const itsVersion = VERSIONS[program] ?? `init.ts ${version}\n`;
  return lines
    .filter(([name]) => !/^(kernel|page|memory|end|machine's .*|user 65535 looks .*)$/.test(name))
    .map(([name, what, stdout, stderr]) => [
      name,
      what,
      stdout === itsVersion ? "its version" : stdout,
      stderr,
    ]);
}

/** How one case of a program went. */
const what = async (kernel: Kernel, program: string, name: string) =>
  (await reportOf(kernel)).of(program).find((line) => line[0] === name)?.[1];

if (how !== "") test.skip(`kernels (skipped: ${how})`, () => {});
else {
  test("there is a kernel for every architecture", () => {
    const names = new Set(kernels.map(({ architecture }) => architecture.name));
    expect([...names].toSorted()).toEqual(architectures.map(({ name }) => name).toSorted());
  });

  for (const kernel of kernels) {
    const { skip, name } = needs(kernel.architecture.needed.run);
    const title = `${kernel.architecture.name}, ${kernel.flavour} of ${kernel.suite} (${folderOf(kernel)})`;
    describe.skipIf(skip)(name(title), () => {
      test(`it boots, with pages of ${kernel.kibibytes} KiB`, async () => {
        expect(await what(kernel, "pause", "page")).toBe(String(kernel.kibibytes * 1024));
      });

      for (const program of kernel.runsHosted ? ["pause", "hosted"] : ["pause"])
        test(`${program === "pause" ? "freestanding" : program}: arguments, refused calls, every signal, orphans, registers, the image's user`, async () => {
          const done = await doneBy(program, kernel);
          expect(done).toEqual(await doneBy("reference", kernel));
          // That the reference does what it should, in each part of it.
          for (const line of [
            ["arguments --help x -v", "exit 0", "its version", ""],
            ["sigaction fails for signal 15", "exit 2", "", "Warning: pause should be the first process\n"],
            ["signal 1 not to PID 1", "signal 1", "", "Warning: pause should be the first process\n"],
            ["signal 15 to PID 1 from outside", "exit 0", "", MESSAGE],
            ["signal 64 to PID 1 from inside", "rests", "", ""],
            ["orphans", "makers: 0, all reaped; at rest: 0, 0 switches, 0 ticks", "", ""],
            ["SIGTERM of user 65535", "exit 0", "", MESSAGE],
          ])
            expect(done).toContainEqual(line);
          // Not even the image's user may look into PID 1, if that is his.
          expect(await what(kernel, program, "user 65535 looks into it")).toBe("no");
          expect(await what(kernel, "reference", "user 65535 looks into it")).toBe("yes");
        });

      test("freestanding as the machine's own init: it rests, reaps and ends", async () => {
        const { of, console } = await reportOf(kernel);
        const rest = of("pause").find(([name]) => name === "at rest")?.[1] ?? "";
        expect(rest).toContain("SigCgt: 0000000000014002");
        expect(of("pause").filter(([name]) => name.startsWith("machine's "))).toEqual([
          ["machine's init at rest", rest, "", ""],
          ["machine's init: orphans", "makers: 0, all reaped; at rest: 0, 0 switches, 0 ticks", "", ""],
          ["machine's init after orphans", rest, "", ""],
        ]);
        // The kernel does not live on without it.
        expect(console.slice(console.indexOf("|end|"))).toMatch(
          new RegExp(`^${MESSAGE}.*Attempted to kill init! exitcode=0x00000000$`, "m"),
        );
      });

      test("memory: freestanding at most 1.02 of the floor, and below C with musl", async () => {
        const memory = async (program: string) => Number(await what(kernel, program, "memory"));
        const freestanding = await memory("pause");
        expect(freestanding).toBeGreaterThan(0);
        expect(freestanding / (await memory("floor"))).toBeLessThanOrEqual(1.02);
        expect(freestanding).toBeLessThan(await memory("musl"));
        if (kernel.runsHosted)
          expect((await memory("hosted")) / (await memory("reference"))).toBeLessThan(1.1);
      });
    });
  }
}
