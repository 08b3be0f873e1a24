/**
 * Random mains: the freestanding executable does what main itself does where Bun runs it.
 */
import { expect } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { compileAll } from "../../ffi/freestanding/compile.ts";
import { architectures, emulated } from "../helpers/architectures.ts";
import { cases, type Dice } from "../helpers/dice.ts";
import { folderOf } from "../helpers/edits.ts";
import { ended, needing } from "../helpers/expect.ts";
import { inNewNamespace, NAMESPACES } from "../helpers/pod.ts";
import { output } from "../helpers/process.ts";
import { architecture as own } from "../helpers/programs.ts";
import { lacking } from "../helpers/tools.ts";

const { test } = needing(NAMESPACES);

const OPTIONS = ["-a", "-b", "--long"];
/** Of HUP, KILL, TERM and STOP these cannot be caught. */
const UNCAUGHT = [9, 19];

/** Statements of main, with so many levels of decisions and loops. */
function someBlock(dice: Dice, depth: number): string {
  const condition = () =>
    dice.pick([
      `argv.some((argument) => strcasecmp(argument, "${dice.pick(OPTIONS)}") === 0)`,
      "getpid() === 1",
      `sigaction(${dice.pick([1, 15, ...UNCAUGHT])}, { sa_handler: sigdown }, null) < 0`,
      `count > ${dice.int(0, 4)}`,
    ]);
  const block = () => `{\n${someBlock(dice, depth - 1)}}`;
  const text = () => dice.pick(['"one\\n"', '"another\\n"', 'count + "\\n"']);
  const simple = [() => `printf(${text()});`, () => `fprintf(stderr, ${text()});`, () => "count++;"];
  const nested = [
    () => `if (${condition()}) ${block()} else ${block()}`,
    () => `if (${condition()} ${dice.pick(["&&", "||"])} !(${condition()})) ${block()}`,
    () => `for (let times = ${dice.int(0, 3)}; times > 0; times--) ${block()}`,
    () => `return ${dice.int(0, 255)};`,
  ];
  return dice.list(1, 4, () => `${dice.pick(depth > 0 ? [...simple, ...nested] : simple)()}\n`).join("");
}

test("a random main does as an executable what it does in Bun", async () => {
  const there = architectures.filter(({ name, needed }) => name === own || lacking(needed.run) === "");
  await cases(200, async (dice) => {
    const words = "argv, fprintf, getpid, printf, sigaction, stderr, strcasecmp";
    const main = `({ ${words} }) => {\nlet count = 0;\n${someBlock(dice, 2)}return count;\n}`;
    const sigdown = '({ _exit, psignal }, signo) => { psignal(signo, "down"); _exit(0); }';
    const program = `import { start } from "#ffi/start.ts";\nconst sigdown = ${sigdown};\nstart(${main});\n`;
    using folder = folderOf({ "init.ts": program });
    const executables = await compileAll(join(folder.path, "init.ts"));
    for (const isPid1 of [true, false]) {
      const args = dice.list(0, 3, () => dice.pick([...OPTIONS, "-A", "--LONG", "a"]));
      const said = { stdout: "", stderr: "" };
      const exitCode = new Function("sigdown", `return ${main}`)()({
        argv: { some: (isWanted: (argument: string) => boolean) => args.some(isWanted) },
        fprintf: (_: unknown, text: string) => (said.stderr += text),
        getpid: () => (isPid1 ? 1 : 2),
        printf: (text: string) => (said.stdout += text),
        sigaction: (signo: number) => (UNCAUGHT.includes(signo) ? -1 : 0),
        strcasecmp: (argument: string, text: string) => Number(argument.toLowerCase() !== text),
      });
      const architecture = dice.pick(there);
      const { name } = architecture;
      const file = join(folder.path, name);
      writeFileSync(file, executables.get(name)?.file ?? "", { mode: 0o755 });
      const command = emulated(architecture, file, ...args);
      const done = output(isPid1 ? inNewNamespace(...command) : command);
      expect(done, `${name} ${args}\n${program}`).toEqual(ended({ ...said, exitCode }));
    }
  });
});
