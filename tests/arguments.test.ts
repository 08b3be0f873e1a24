import { expect, test } from "bun:test";
import { join } from "node:path";
import { describeEach, MESSAGE } from "./helpers/expect.ts";
import { outside } from "./helpers/pod.ts";
import { output } from "./helpers/process.ts";
import { hosted, type Program, programs, root } from "./helpers/programs.ts";
import { untilAtRest } from "./helpers/rest.ts";

/** The script itself, which Bun runs without a build. */
const fromSource: Program = { ...hosted, name: "bun init.ts", executable: process.execPath };
const commandOf = (program: Program) =>
  program === fromSource ? [process.execPath, join(root, "init.ts")] : [program.executable];

const printVersion: Record<string, string[]> = {
  "-v": ["-v"],
  "-V": ["-V"],
  "-v after other arguments": ["--help", "x", "-v"],
  "-V before other arguments": ["-V", "--help"],
  "-v after 10,000 arguments": [...Array(10_000).fill("argument"), "-v"],
};

const ignored: Record<string, string[]> = {
  none: [],
  "--help": ["--help"],
  "--version": ["--version"],
  "--inspect": ["--inspect"],
  "-e": ["-e", "process.exit(9)"],
  "-v as a part of another": ["-vv", "--v", "v", "-v ", " -v"],
  "an empty one": [""],
  "run and a script": ["run", "init.ts"],
  "-- and more": ["--", "--bun"],
  "bytes that are no UTF-8": ["\xff\xfe"],
  "10,000": Array(10_000).fill("argument"),
};

describeEach(
  (program) => {
    for (const [name, args] of Object.entries(printVersion)) {
      test(`${name} prints the version`, () => {
        expect(output([...commandOf(program), ...args])).toEqual({
          stdout: program.version,
          stderr: "",
          exitCode: 0,
          signalCode: null,
        });
      });
    }

    for (const [name, args] of Object.entries(ignored)) {
      test(`arguments are ignored: ${name}`, async () => {
        await using child = outside([...commandOf(program), ...args]);
        // A start from the source compiles it, in threads.
        await untilAtRest(child, program, program === fromSource ? { runtime: "may stay" } : {});
        child.kill("SIGTERM");
        expect(await child.exited).toBe(0);
        expect(await new Response(child.stdout).text()).toBe("");
        expect(await new Response(child.stderr).text()).toBe(
          `Warning: pause should be the first process\n${MESSAGE}`,
        );
      });
    }
  },
  [...programs, fromSource],
);

test("another system is refused in one line", () => {
  for (const [platform, arch] of [
    ["darwin", "arm64"],
    ["linux", "riscv64"],
  ]) {
    const pretend = `for (const [key, value] of Object.entries(${JSON.stringify({ platform, arch })}))
      Object.defineProperty(process, key, { value });
      await import(${JSON.stringify(join(root, "init.ts"))})`;
    expect(output([process.execPath, "-e", pretend])).toEqual({
      stdout: "",
      stderr: `Error: pause needs Linux with glibc on x64 or arm64, not ${platform} ${arch}\n`,
      exitCode: 1,
      signalCode: null,
    });
  }
});
