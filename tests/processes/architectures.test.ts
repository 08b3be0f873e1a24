/**
 * Every architecture under qemu-user: the freestanding executable beside the C program that the cross compiler makes.
 *
 * qemu-user gives no /proc/PID/status of its guest, so what is caught is seen in what signals do; its memory and its
 * page tables are qemu's own, so they are not looked at.
 */
import { expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { version } from "../../package.json" with { type: "json" };
import { type Architecture, architectures } from "../helpers/architectures.ts";
import { expectTerminates, MESSAGE, needing } from "../helpers/expect.ts";
import { observable, Pod } from "../helpers/pod.ts";
import { childrenOf, output, until } from "../helpers/process.ts";
import { compile, dist } from "../helpers/programs.ts";
import { sleepsInPause } from "../helpers/rest.ts";
import { CC } from "../helpers/tools.ts";

/** By its name, how it is run and what it says of its version. */
const programsOf = ({ name, compiler, emulator }: Architecture) => ({
  freestanding: {
    command: () => [emulator(), join(dist, "freestanding", name, "pause")],
    version: `init.ts ${version}\n`,
  },
  reference: {
    command: () => [emulator(), compile("reference", compiler, join(dist, `reference-${name}`))],
    version: `pause.c ${version}\n`,
  },
});

const WARNING = "Warning: pause should be the first process\n";
const SIGNALS = { SIGINT: 1, SIGTERM: 2, SIGCHLD: 3 } as const;
const strace = needing({ strace: "strace" });

for (const architecture of architectures) {
  const tools_ = needing(CC, architecture.needed.run);
  for (const [title, program] of Object.entries(programsOf(architecture))) {
    // qemu-x86_64 7.2 crashes in the handlers of a static glibc. It is run on the processor, everywhere else.
    if (architecture.name === "amd64" && title === "reference") continue;
    tools_.describe(`${architecture.name}, ${title}`, () => {
      const start = (...args: readonly string[]) =>
        Bun.spawn(observable(...program.command(), ...args), { stdio: ["ignore", "pipe", "pipe"] });

      test("-v and -V among the arguments print the version; others are ignored", async () => {
        for (const args of [["-v"], ["-V"], ["--help", "x", "-v"], ["-V", ""]])
          expect(output([...program.command(), ...args])).toEqual({
            stdout: program.version,
            stderr: "",
            exitCode: 0,
            signalCode: null,
          });
        await using child = start("-vv", "v", "-", "--v", "");
        await until("pause", () => sleepsInPause(child.pid), child);
        child.kill("SIGTERM");
        expect(await new Response(child.stderr).text()).toBe(`${WARNING}${MESSAGE}`);
        expect(await child.exited).toBe(0);
      });

      test("SIGINT ends it with its message and 0, others with the default action", async () => {
        for (const [signal, ending] of [
          ["SIGINT", 0],
          ["SIGHUP", "SIGHUP"],
          ["SIGUSR1", "SIGUSR1"],
        ] as const) {
          await using child = start();
          await until("pause", () => sleepsInPause(child.pid), child);
          child.kill(signal);
          await child.exited;
          expect(child.signalCode ?? child.exitCode).toBe(ending);
          const message = signal === "SIGINT" ? "Shutting down, got signal: Interrupt\n" : "";
          expect(await new Response(child.stderr).text()).toBe(`${WARNING}${message}`);
        }
      });

      test("as PID 1: a thousand orphans in every order of death, stopped and continued ones too", async () => {
        await using pod = await Pod.start(program.command());
        await until("pause", () => sleepsInPause(pod.pid), pod);
        const makers = Bun.spawn(pod.inside(compile("orphans"), "2", "500"));
        expect(await makers.exited).toBe(0);
        await until("no child", () => childrenOf(pod.pid).length === 0 && pod.others().length === 0, pod);
        // After all of that SIGCHLD is still caught: the handler has returned as it should.
        await until("pause", () => sleepsInPause(pod.pid), pod);
        await expectTerminates(pod);
      });

      for (const [signal, exitCode] of Object.entries(SIGNALS))
        strace.test(`sigaction(${signal}) fails: exit code ${exitCode}`, async () => {
          // qemu passes on what the kernel below says to its own call for that signal.
          const file = join(dist, `qemu-${architecture.name}-${title}.strace`);
          rmSync(file, { force: true });
          const trace = ["strace", "-qq", "-o", file, "-e", "trace=rt_sigaction,rt_sigsuspend,ppoll"];
          await using tracer = Bun.spawn([...trace, ...program.command()], {
            stdio: ["ignore", "ignore", "ignore"],
          });
          const text = () => (existsSync(file) ? readFileSync(file, "latin1") : "");
          await until("pause", () => /^(rt_sigsuspend|ppoll)\(/m.test(text()), tracer);
          for (const pid of childrenOf(tracer.pid)) process.kill(pid, "SIGTERM");
          await tracer.exited;
          const calls = text().match(/^rt_sigaction\(.*$/gm) ?? [];
          const when =
            1 + calls.findLastIndex((call) => call.startsWith(`rt_sigaction(${signal}, {sa_handler=0x`));
          const inject = ["-e", "trace=rt_sigaction", "-e", `inject=rt_sigaction:error=EINVAL:when=${when}`];
          expect(when).toBeGreaterThan(0);
          expect(output(["strace", "-qq", "-o", "/dev/null", ...inject, ...program.command()])).toEqual({
            stdout: "",
            stderr: WARNING,
            exitCode,
            signalCode: null,
          });
        });
    });
  }
}
