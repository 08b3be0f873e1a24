/**
 * Every architecture and size of a page under its own kernel: the builds beside the C program, and the freestanding one
 * as the machine's own init.
 */
import { beforeAll, describe, expect, test } from "bun:test";
import { version } from "../../package.json" with { type: "json" };
import { architectures } from "../helpers/architectures.ts";
import { missingDebian } from "../helpers/debian.ts";
import { MESSAGE } from "../helpers/expect.ts";
import { unobtainable } from "../helpers/tools.ts";
import { boot, fetched, folderOf, type Kernel, kernels, type Report } from "./kernels.ts";

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

function start(kernel: Kernel): Promise<Report> {
  const report = boots.get(kernel) ?? boot(kernel);
  boots.set(kernel, report);
  report.catch(() => {}); // who waits for it fails
  return report;
}

/** Boots two at a time: while one is waited for, the next one runs. */
function booted(kernel: Kernel): Promise<Report> {
  const report = start(kernel);
  const next = kernels[kernels.indexOf(kernel) + 1];
  if (next !== undefined) start(next);
  return report;
}

const QUIET = "makers: 0, all reaped; at rest: 0, 0 switches, 0 ticks";
const WARNING = "Warning: pause should be the first process\n";
/** What the reference has to do for certain, one line of each part. */
const CERTAIN = [
  ["arguments --help x -v", "exit 0", "its version", ""],
  ["sigaction fails for signal 15", "exit 2", "", WARNING],
  ["signal 1 not to PID 1", "signal 1", "", WARNING],
  ["signal 15 to PID 1 from outside", "exit 0", "", MESSAGE],
  ["signal 64 to PID 1 from inside", "rests", "", ""],
  ["orphans", QUIET, "", ""],
  ["SIGTERM of user 65535", "exit 0", "", MESSAGE],
];

if (how !== "") test.skipIf(true)(`kernels (skipped: ${how})`, () => {});
else {
  test("there is a kernel for every architecture", () => {
    const names = new Set(kernels.map(({ architecture }) => architecture.name));
    expect([...names].toSorted()).toEqual(architectures.map(({ name }) => name).toSorted());
  });

  for (const kernel of kernels) {
    const { run } = kernel.architecture.needed;
    const why = (typeof run === "function" ? run() : "") || unobtainable(() => fetched(kernel));
    const title = `${kernel.architecture.name}, ${kernel.flavour} of ${kernel.suite} (${why ? `skipped: ${why}` : folderOf(kernel)})`;
    describe.skipIf(why !== "")(title, () => {
      let report: Report;
      beforeAll(async () => {
        report = await booted(kernel);
      }, 900_000);

      /** How one case of a program went. */
      const went = (program: string, name: string) =>
        report.of(program).find((line) => line[0] === name)?.[1];

      /** What all programs have to do alike. */
      const doneBy = (program: string) =>
        report
          .of(program)
          .filter(([name]) => !/^(kernel|page|memory|end|machine's .*|user 65535 looks .*)$/.test(name))
          .map(([name, what, stdout, stderr]) => {
            const isVersion = stdout === `${program === "reference" ? "pause.c" : "init.ts"} ${version}\n`;
            return [name, what, isVersion ? "its version" : stdout, stderr];
          });

      test(`pages of ${kernel.kibibytes} KiB`, () => {
        expect(went("pause", "page")).toBe(String(kernel.kibibytes * 1024));
      });

      for (const program of kernel.runsHosted ? ["pause", "hosted"] : ["pause"])
        test(`${program === "pause" ? "freestanding" : program} does what the C program does`, () => {
          expect(doneBy(program)).toEqual(doneBy("reference"));
          expect(doneBy(program)).toEqual(expect.arrayContaining(CERTAIN));
          // But not even its own user may look into it.
          expect(went("reference", "user 65535 looks into it")).toBe("yes");
          expect(went(program, "user 65535 looks into it")).toBe("no");
        });

      test("freestanding is the machine's own init: it rests, reaps and ends", () => {
        const rest = went("pause", "at rest") ?? "";
        expect(rest).toContain("SigCgt: 0000000000014002");
        expect(report.of("pause").filter(([name]) => name.startsWith("machine's "))).toEqual([
          ["machine's init at rest", rest, "", ""],
          ["machine's init: orphans", QUIET, "", ""],
          ["machine's init after orphans", rest, "", ""],
        ]);
        // The kernel does not live on without it.
        expect(report.console.split("|end|")[1]).toMatch(
          new RegExp(`^${MESSAGE}.*Attempted to kill init! exitcode=0x00000000$`, "m"),
        );
      });

      test("memory: freestanding at most 1.02 of the floor, and below C with musl", () => {
        const ratio = (one: string, other: string) =>
          Number(went(one, "memory")) / Number(went(other, "memory"));
        expect(ratio("pause", "floor")).toBeLessThanOrEqual(1.02);
        expect(ratio("pause", "musl")).toBeLessThan(1);
        if (kernel.runsHosted) expect(ratio("hosted", "reference")).toBeLessThan(1.03);
      });
    });
  }
}
