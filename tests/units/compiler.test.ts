/**
 * The compiler of the freestanding executables: what its listings quote, and how often it runs a program. What it refuses
 * is in tests/processes/edits.test.ts.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import type { Script } from "node:vm";
import { compileAll } from "../../ffi/freestanding/compile.ts";
import { record } from "../../ffi/freestanding/record.ts";
import { readSource } from "../../ffi/freestanding/world.ts";
import { edited, folderOf } from "../helpers/edits.ts";

const START = 'import { start } from "#ffi/start.ts";\n';

/** The listings of a program of these files. */
async function listings(files: Readonly<Record<string, string>>): Promise<string[]> {
  using folder = folderOf(files);
  const executables = await compileAll(join(folder.path, "init.ts"));
  return Array.from(executables.values(), ({ listing }) => listing);
}

test("a main that does not ask whether SIGCHLD is caught rests either way, and reaps only where it is", async () => {
  const program = `${START}
    const sigreap = ({ waitpid }) => {
      while (waitpid(-1, null, 1) > 0);
    };
    start(({ pause, sigaction }) => {
      sigaction(17, { sa_handler: sigreap }, null);
      for (;;) pause();
    });`;
  for (const listing of await listings({ "init.ts": program }))
    expect(listing.match(/\.(pause|reap):$/gm)).toEqual([".reap:", ".pause:", ".pause:"]);
});

test("the listing quotes each call of a handler, the line of a function that calls, and other files", async () => {
  const program = `${START}import { text } from "./text.ts";
    import { print } from "./print.ts";
    function install(sigaction, signo) {
      sigaction(signo, { sa_handler: sigdown }, null); // quoted
    }
    const sigdown = ({ psignal, _exit }, signo) => {
      psignal(signo, "once"); // quoted
      psignal(signo, "twice"); // quoted
      _exit(3); // quoted
    };
    start(({ pause, printf, sigaction }) => {
      for (const signo of [2, 15]) install(sigaction, signo);
      [1, 3].forEach((signo) => sigaction(signo, { sa_handler: sigdown }, null)); // quoted
      printf(text()); // quoted
      print(printf);
      for (;;) pause(); // quoted
    });`;
  const files = {
    "init.ts": program,
    "text.ts": "export const text = () =>\n  more;\nconst more = 'more\\n';\n",
    "print.ts": "\nexport const print = (printf) => {\n  printf('printed\\n');\n};\n",
  };
  const lines = program.split("\n").map((line, index) => `init.ts:${index + 1}  ${line.trim()}`);
  const quoted = [...lines.filter((line) => line.endsWith("// quoted")), "print.ts:3  printf('printed\\n');"];
  for (const listing of await listings(files))
    expect([...new Set(listing.match(/(?<=^ {2}; )\w+\.ts:\d+ {2}.*$/gm))].toSorted()).toEqual(
      quoted.toSorted(),
    );
});

/** How often a program is run to compile it. */
async function runsOf(initTs: string): Promise<number> {
  using folder = folderOf({ "init.ts": initTs });
  const source = await readSource(join(folder.path, "init.ts"));
  let runs = 0;
  const counted = (script: Script) => {
    const runInContext: Script["runInContext"] = (...given) => {
      runs++;
      return script.runInContext(...given);
    };
    return { runInContext } as Partial<Script> as Script;
  };
  record({ ...source, sloppy: counted(source.sloppy), strict: counted(source.strict) });
  return runs;
}

test("main is run some times for each of its paths: messages cost nothing, and an option that ends nothing doubles it", async () => {
  const rest = "  for (;;) pause();\n";
  const withLines = (count: number, line: (index: number) => string) =>
    runsOf(
      edited("init.ts", [[rest, Array.from({ length: count }, (_, index) => line(index)).join("") + rest]]),
    );
  const message = (index: number) => `printf("${index}\\n");\n`;
  const option = (index: number) =>
    `if (argv.some((argument) => strcasecmp(argument, "-${index}") === 0)) ${message(index)}`;
  const paths = 1 + 2 * (3 + 1);
  expect(await withLines(0, message)).toBeLessThan(3 * paths);
  expect(await withLines(25, message)).toBeLessThan(3 * paths);
  expect(await withLines(6, option)).toBeLessThan(3 * (1 + 2 * (3 + 64)));
});
