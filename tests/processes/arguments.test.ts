import { expect } from "bun:test";
import { join } from "node:path";
import { cases } from "../helpers/dice.ts";
import { describeEach, ended, MESSAGE, needing, WARNING } from "../helpers/expect.ts";
import { NAMESPACES, outside } from "../helpers/pod.ts";
import { output } from "../helpers/process.ts";
import { hosted, type Program, programs, root } from "../helpers/programs.ts";
import { restsOrEnds, untilAtRest } from "../helpers/rest.ts";
import { CC } from "../helpers/tools.ts";

const { test } = needing(NAMESPACES);
const cc = needing(NAMESPACES, CC, { bash: "bash" });

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
  "characters that are not ASCII": ["\xff\xfe"],
  "10,000": Array(10_000).fill("argument"),
};

describeEach(
  (program) => {
    for (const [name, args] of Object.entries(printVersion)) {
      test(`${name} prints the version`, () => {
        expect(output([...commandOf(program), ...args])).toEqual(ended({ stdout: program.version }));
      });
    }

    for (const [name, args] of Object.entries(ignored)) {
      test(`arguments are ignored: ${name}`, async () => {
        await using child = outside([...commandOf(program), ...args]);
        // A start from the source compiles it, in threads.
        await untilAtRest(child, program, program === fromSource ? { runtime: "may stay" } : {});
        expect(await child.end("SIGTERM")).toEqual(ended({ stderr: WARNING + MESSAGE }));
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
    expect(output([process.execPath, "-e", pretend])).toEqual(
      ended({
        stderr: `Error: pause needs Linux with glibc on x64 or arm64, not ${platform} ${arch}\n`,
        exitCode: 1,
      }),
    );
  }
});

/** Nearly an option that prints the version. "\xef\xbb\xbf" is a byte order mark, which some decoders drop. */
const NEAR_MISSES =
  "|v|-|-vv|--v|-v | -v|-\xff|-v\xff|\xff-v|-\xc0v|\xef\xbb\xbf-v|\rv|\rV|-\x16|-6|-\xd6|-\xf6|\xadv".split(
    "|",
  );

/** Runs a program with arguments of any bytes, which only a shell can pass, until it ends by itself or rests. */
async function outcome(program: Program, args: readonly string[]) {
  const quoted = args.map(
    (arg) =>
      `$'${[...arg].map((byte) => `\\x${byte.charCodeAt(0).toString(16).padStart(2, "0")}`).join("")}'`,
  );
  const command = ["bash", "-c", `exec "$0" ${quoted.join(" ")}`, program.executable];
  await using child = outside(command);
  await restsOrEnds(child, program);
  return await child.end("SIGTERM");
}

cc.test("only -v and -V are arguments that matter, as for the reference", () =>
  cases(60, async (dice) => {
    const args = dice.list(0, 8, () =>
      dice.pick([dice.pick(NEAR_MISSES), dice.text(dice.pick([3, 40]), 0, 1)]),
    );
    if (dice.chance(0.3)) args.splice(dice.int(0, args.length), 0, dice.pick(["-v", "-V"]));
    const prints = args.includes("-v") || args.includes("-V");
    const endings = await Promise.all(programs.map((program) => outcome(program, args)));
    expect(endings, JSON.stringify(args)).toEqual(
      programs.map(({ version }) => ended(prints ? { stdout: version } : { stderr: WARNING + MESSAGE })),
    );
  }),
);
