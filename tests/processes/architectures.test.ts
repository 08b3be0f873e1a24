/**
 * Every architecture under qemu-user: both builds, beside the C program that the cross compiler makes.
 *
 * qemu-user gives no /proc/PID/status of its guest, so what is caught is seen in what signals do; its memory and its
 * page tables are qemu's own, so they are not looked at.
 */
import { beforeAll, expect } from "bun:test";
import { join } from "node:path";
import { version } from "../../package.json" with { type: "json" };
import { type Architecture, architectures } from "../helpers/architectures.ts";
import {
  ended,
  expectTerminates,
  INTERRUPTED,
  MESSAGE,
  needing,
  testRefusals,
  WARNING,
} from "../helpers/expect.ts";
import { NAMESPACES, outside, Pod } from "../helpers/pod.ts";
import { must, output, proc, until } from "../helpers/process.ts";
import { compile, dist, root } from "../helpers/programs.ts";
import { sleepsInPause } from "../helpers/rest.ts";
import { callsOfALife, following } from "../helpers/strace.ts";
import { CC } from "../helpers/tools.ts";

const { test } = needing(NAMESPACES);

/** Where the libraries are that the hosted build loads on arm64, with Debian's package for them. */
const [LIBRARIES, brings] =
  process.arch === "arm64" ? ["/", "libc6"] : ["/usr/aarch64-linux-gnu", "libc6-arm64-cross"];
const hosted = join(dist, "pause-arm64");
const ours = `init.ts ${version}\n`;

/** By its name, the executable and what it says of its version. */
const programsOf = ({ name, compiler }: Architecture) => ({
  freestanding: { executable: () => join(dist, "freestanding", name, "pause"), version: ours },
  reference: {
    executable: () => compile("reference", compiler, join(dist, `reference-${name}`)),
    version: `pause.c ${version}\n`,
  },
  hosted: { executable: () => hosted, version: ours },
});

/** Whose kernels have no pause(2), and where a handler without SA_SIGINFO has a frame of the older kind. */
const NO_PAUSE = new Set(["arm64", "loong64", "riscv64"]);
const NO_RT_SIGRETURN = new Set(["arm", "s390x"]);

for (const architecture of architectures) {
  const { name, emulator, needed } = architecture;
  for (const [title, { executable, version }] of Object.entries(programsOf(architecture))) {
    // qemu-x86_64 7.2 crashes in the handlers of a static glibc. It is run on the processor, everywhere else.
    if (name === "amd64" && title === "reference") continue;
    // Bun has no other but amd64's, which is run on the processor.
    const isHosted = title === "hosted";
    if (isHosted && name !== "arm64") continue;

    const command = (...options: readonly string[]) => [
      emulator(),
      ...(isHosted ? ["-L", LIBRARIES] : []),
      ...options,
      executable(),
    ];

    needing(CC, needed.run, isHosted ? { [LIBRARIES]: brings } : {}).describe(`${name}, ${title}`, () => {
      if (isHosted)
        beforeAll(() => {
          const build = ["npm", "--prefix", root, "run", "-s", "build:hosted", "--"];
          must(...build, "--target=bun-linux-arm64", "--outfile", hosted);
        });

      async function atRest(...command: readonly string[]) {
        const child = outside(command);
        await until("pause", () => sleepsInPause(child.pid), child);
        return child;
      }

      test("-v and -V among the arguments print the version; others are ignored", async () => {
        for (const args of [["-v"], ["-V"], ["--help", "x", "-v"], ["-V", ""]])
          expect(output([...command(), ...args])).toEqual(ended({ stdout: version }));
        await using child = await atRest(...command(), "-vv", "v", "-", "--v", "");
        expect(await child.end("SIGTERM")).toEqual(ended({ stderr: WARNING + MESSAGE }));
      });

      test("SIGINT ends it with its message and 0, others with the default action", async () => {
        for (const [signal, ending] of [
          ["SIGINT", { stderr: WARNING + INTERRUPTED }],
          ["SIGHUP", { stderr: WARNING, signalCode: "SIGHUP" }],
          ["SIGUSR1", { stderr: WARNING, signalCode: "SIGUSR1" }],
        ] as const) {
          await using child = await atRest(...command());
          expect(await child.end(signal)).toEqual(ended(ending));
        }
      });

      test("as PID 1: a thousand orphans in every order of death, stopped and continued ones too", async () => {
        await using pod = await Pod.start(command());
        await until("pause", () => sleepsInPause(pod.pid), pod);
        // Of the hosted build nothing stays. What qemu itself has mapped does.
        if (isHosted) expect(proc(pod.pid, "maps")).not.toContain(hosted);
        expect(pod.exec(compile("orphans"), "2", "500").exitCode).toBe(0);
        await pod.untilAlone();
        // After all of that SIGCHLD is still caught: the handler has returned as it should.
        await until("pause", () => sleepsInPause(pod.pid), pod);
        await expectTerminates(pod);
      });

      test("at rest no system calls are left but those of its signals", async () => {
        const { rest } = await callsOfALife(following((file) => command("-strace", "-D", file)));
        const pause = NO_PAUSE.has(name) ? "ppoll" : "pause";
        const sigreturn = NO_RT_SIGRETURN.has(name) ? "sigreturn" : "rt_sigreturn";
        expect(rest).toEqual(["exit_group", pause, sigreturn, "wait4", "write"]);
      });

      testRefusals(command);
    });
  }
}
