/**
 * What an editor of init.ts may write: both builds do what it says, or both refuse it in the same line.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { version } from "../package.json" with { type: "json" };
import {
  build,
  type Changes,
  edited,
  expected,
  folderOf,
  outcome,
  programsOf,
  type Run,
} from "./helpers/edits.ts";
import { MESSAGE } from "./helpers/expect.ts";
import { output } from "./helpers/process.ts";
import { dist } from "./helpers/programs.ts";

type Change = Changes[number];
const before = (what: string, text: string): Change => [what, text + what];
const after = (what: string, text: string): Change => [what, what + text];

// Where init.ts is edited.
const IMPORTED = 'import { version as VERSION } from "./package.json" with { type: "json" };\n';
const MAIN =
  "function main({ argv, fprintf, getpid, pause, printf, sigaction, stderr, strcasecmp }: Libc): number {\n";
const INT = "  if (sigaction(SIGINT, { sa_handler: sigdown }, NULL) < 0) return 1;\n";
const TERM = "  if (sigaction(SIGTERM, { sa_handler: sigdown }, NULL) < 0) return 2;\n";
const CHLD =
  "  if (sigaction(SIGCHLD, { sa_handler: sigreap, sa_flags: SA_NOCLDSTOP }, NULL) < 0) return 3;\n";
const PAUSE = "  for (;;) pause();\n";
const DOWN = '  psignal(signo, "Shutting down, got signal");\n';
const REAP = "  while (waitpid(-1, NULL, WNOHANG) > 0);\n";
const SIGREAP = `function sigreap({ waitpid }: SignalSafe): void {\n${REAP}}\n`;

const constants = (...names: string[]): Change => ["import { NULL, ", `import { NULL, ${names.join(", ")}, `];
/** An option, and what it does. */
const option = (text: string, does: string) =>
  `  if (argv.some((argument) => strcasecmp(argument, "${text}") === 0)) ${does}\n`;
const lines = (count: number, line: (index: number) => string) =>
  Array.from({ length: count }, (_, index) => line(index)).join("");

const VERSION = `init.ts ${version}\n`;
const downBy = (description: string) => `Shutting down, got signal: ${description}\n`;

const prints: Run = { args: ["x", "-V"], isEarly: true, prints: VERSION, ends: 0 };
const ends: Run = { events: ["SIGTERM"], says: MESSAGE, ends: 0 };
const reaps: Run = {
  isPid1: true,
  events: ["orphan", "SIGCHLD", "SIGINT"],
  says: downBy("Interrupt"),
  ends: 0,
};
/** As without the edit. */
const asEver = [prints, ends, reaps];

/** HUP, QUIT, USR1, USR2, ALRM, STKFLT, CONT, TSTP. */
const OTHERS = [1, 3, 10, 12, 14, 16, 18, 20];

interface Edit {
  readonly changes: Changes;
  /** Changes of other files, or whole ones. */
  readonly files?: Readonly<Record<string, string>>;
  readonly runs: readonly Run[];
}

const works: Record<string, Edit> = {
  nothing: { changes: [], runs: asEver },
  "SIGHUP ends it like SIGTERM": {
    changes: [
      constants("SIGHUP"),
      before(PAUSE, "  if (sigaction(SIGHUP, { sa_handler: sigdown }, NULL) < 0) return 4;\n"),
    ],
    files: {
      "ffi/constants.ts": edited("ffi/constants.ts", [
        before("export const SIGINT", "export const SIGHUP = 1;\n"),
      ]),
    },
    runs: [
      prints,
      ...[
        { ...ends, catches: [1, 2, 15, 17] },
        { ...reaps, catches: [1, 2, 15, 17] },
      ],
      ...[true, false].map((isPid1) => ({
        ...{ isPid1, catches: [1, 2, 15, 17] },
        ...{ events: ["SIGHUP"] as const, says: downBy("Hangup"), ends: 0 },
      })),
    ],
  },
  "SIGUSR1 is ignored": {
    changes: [
      constants("SIG_IGN"),
      before(PAUSE, "  if (sigaction(10, { sa_handler: SIG_IGN }, NULL) < 0) return 4;\n"),
    ],
    runs: [
      prints,
      { events: ["SIGUSR1"], ignores: [10] },
      { events: ["SIGUSR1", "SIGTERM"], says: MESSAGE, ends: 0 },
      { events: ["SIGUSR2"], ends: "SIGUSR2" },
    ],
  },
  "SIGTERM is what it was": {
    changes: [constants("SIG_DFL"), before(PAUSE, "  sigaction(SIGTERM, { sa_handler: SIG_DFL }, NULL);\n")],
    runs: [
      { catches: [2, 17], events: ["SIGTERM"], ends: "SIGTERM" },
      { isPid1: true, catches: [2, 17], events: ["SIGTERM", "SIGINT"], says: downBy("Interrupt"), ends: 0 },
    ],
  },
  "--version too": {
    changes: [
      [
        'strcasecmp(argument, "-v") === 0',
        'strcasecmp(argument, "-v") === 0 || strcasecmp(argument, "--version") === 0',
      ],
    ],
    runs: [
      ...asEver,
      { ...prints, args: ["--version"] },
      { ...prints, args: ["--versio", "--VERSION"] },
      { ...ends, args: ["--versions", "version", ""] },
    ],
  },
  "-h with a long text, and another exit code": {
    changes: [after(MAIN, option("-h", `{ fprintf(stderr, "${"long ".repeat(500)}"); return 64; }`))],
    runs: [...asEver, { args: ["-v", "-H"], isEarly: true, says: "long ".repeat(500), ends: 64 }],
  },
  "a second message": {
    changes: [before(PAUSE, '  printf("100 %s ready\\0\\n");\n')],
    runs: [prints, { ...ends, prints: "100 %s ready\0\n" }, { ...reaps, prints: "100 %s ready\0\n" }],
  },
  SA_RESTART: {
    changes: [constants("SA_RESTART"), ["SA_NOCLDSTOP }", "SA_NOCLDSTOP | SA_RESTART }"]],
    runs: asEver,
  },
  "SA_RESETHAND, which makes the flags negative": {
    changes: [
      constants("SA_RESETHAND"),
      [
        "SIGINT, { sa_handler: sigdown }",
        "SIGINT, { sa_handler: sigtwice, sa_flags: SA_NOCLDSTOP | SA_RESETHAND }",
      ],
      before(
        "function sigreap",
        'function sigtwice({ psignal }: SignalSafe, signo: number): void {\n  psignal(signo, "Once more");\n}\n\n',
      ),
    ],
    runs: [
      ends,
      { events: ["SIGINT"], catchesThen: [15, 17], says: "Once more: Interrupt\n" },
      { events: ["SIGINT", "SIGINT"], catchesThen: [15, 17], says: "Once more: Interrupt\n", ends: "SIGINT" },
    ],
  },
  "the number of the signal in the message": {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is init.ts's
    changes: [[DOWN, "  psignal(signo, `Shutting down, got signal ${signo}`);\n"]],
    runs: [prints, { ...ends, says: "Shutting down, got signal 15: Terminated\n" }],
  },
  "a message that depends on the signal": {
    changes: [[DOWN, '  psignal(signo, signo === SIGINT ? "" : "Bye");\n']],
    runs: [
      { events: ["SIGINT"], says: "Interrupt\n", ends: 0 },
      { isPid1: true, events: ["SIGTERM"], says: "Bye: Terminated\n", ends: 0 },
    ],
  },
  "a handler that asks whether a child was dead": {
    changes: [
      [
        SIGREAP,
        "function sigreap({ psignal, waitpid }: SignalSafe, signo: number): void {\n" +
          '  if (waitpid(-1, NULL, WNOHANG) > 0) psignal(signo, "Reaped");\n  else psignal(signo, "Nobody");\n}\n',
      ],
    ],
    runs: [
      {
        isPid1: true,
        events: ["orphan", "SIGCHLD", "SIGTERM"],
        says: `Reaped: Child exited\nNobody: Child exited\n${MESSAGE}`,
        ends: 0,
      },
    ],
  },
  "a handler of SIGCHLD that prints a line": {
    changes: [
      [
        SIGREAP,
        `function sigreap({ waitpid, write }: SignalSafe): void {\n${REAP}  write(2, "Reaped\\n");\n}\n`,
      ],
    ],
    runs: [
      ...[prints, ends],
      { isPid1: true, events: ["orphan", "SIGTERM"], says: `Reaped\n${MESSAGE}`, ends: 0 },
    ],
  },
  "one handler for all signals": {
    changes: [
      [INT, INT.replace("sigdown", "sigany")],
      [TERM, TERM.replace("sigdown", "sigany")],
      [CHLD, CHLD.replace("sigreap", "sigany")],
      before(
        "function main",
        "function sigany(words: SignalSafe, signo: number): void {\n  switch (signo) {\n    case SIGCHLD:\n" +
          "      return sigreap(words);\n    default:\n      return sigdown(words, signo);\n  }\n}\n\n",
      ),
    ],
    runs: asEver,
  },
  "another handler for SIGCHLD, later": {
    changes: [before(PAUSE, "  if (sigaction(SIGCHLD, { sa_handler: sigdown }, NULL) < 0) return 4;\n")],
    runs: [ends, { isPid1: true, events: ["SIGCHLD"], says: downBy("Child exited"), ends: 0 }],
  },
  "SIGCHLD is ignored": {
    changes: [
      [SIGREAP, ""],
      ["SA_NOCLDSTOP, SIGCHLD, SIGINT, SIGTERM, WNOHANG", "SA_NOCLDSTOP, SIG_IGN, SIGCHLD, SIGINT, SIGTERM"],
      ["sa_handler: sigreap", "sa_handler: SIG_IGN"],
    ],
    runs: [
      { isPid1: true, catches: [2, 15], ignores: [17], events: ["orphan"] },
      { isPid1: true, catches: [2, 15], events: ["orphan", "SIGTERM"], says: MESSAGE, ends: 0 },
    ],
  },
  "SIGPWR, which Bun needs until it goes": {
    changes: [before(PAUSE, "  if (sigaction(30, { sa_handler: sigdown }, NULL) < 0) return 4;\n")],
    runs: [{ catches: [2, 15, 17, 30], isPid1: true, events: [30], says: downBy("Power failure"), ends: 0 }],
  },
  "signals that there are not, that cannot be caught, and that glibc keeps": {
    changes: [
      constants("SIG_IGN"),
      before(
        PAUSE,
        "  for (const signo of [-1, 0, 9, 19, 32, 33, 65])\n" +
          // biome-ignore lint/suspicious/noTemplateCurlyInString: it is init.ts's
          "    if (sigaction(signo, { sa_handler: SIG_IGN }, NULL) < 0) fprintf(stderr, `not ${signo}\\n`);\n",
      ),
    ],
    runs: [{ ...ends, says: `not -1\nnot 0\nnot 9\nnot 19\nnot 32\nnot 33\nnot 65\n${MESSAGE}` }],
  },
  "main that catches and cleans up": {
    changes: [
      after(MAIN, "  try {\n"),
      [
        "  return 42;\n",
        "  return 42;\n  } catch {\n    return 9;\n  } finally {\n" + '    fprintf(stderr, "bye\\n");\n  }\n',
      ],
    ],
    runs: [{ ...prints, says: "bye\n" }, ends, reaps],
  },
  "a handler that is installed with an option only": {
    changes: [[TERM, option("-t", `{\n  ${TERM}  }`)]],
    runs: [
      { ...ends, args: ["-t"] },
      { catches: [2, 17], events: ["SIGTERM"], ends: "SIGTERM" },
      { ...reaps, catches: [2, 17] },
    ],
  },
  "a handler that does what an option says": {
    changes: [
      after(IMPORTED, "\nlet quiet = false;\n"),
      after(MAIN, option("-q", "quiet = true;")),
      [DOWN, `  if (!quiet)\n  ${DOWN}`],
    ],
    runs: [
      ...asEver,
      { ...ends, args: ["-Q"], says: "" },
      { ...ends, args: ["-q", "-q"], isPid1: true, says: "" },
    ],
  },
  "25 messages in a row": {
    changes: [
      before(
        PAUSE,
        lines(25, (index) => `  fprintf(stderr, "message ${index}\\n");\n`),
      ),
    ],
    runs: [prints, { ...ends, says: lines(25, (index) => `message ${index}\n`) + MESSAGE }],
  },
  "6 optional messages": {
    changes: [
      before(
        PAUSE,
        lines(6, (index) => option(`-${index}`, `printf("option ${index}\\n");`)),
      ),
    ],
    runs: [...asEver, { ...ends, args: ["-5", "-3", "-0"], prints: "option 0\noption 3\noption 5\n" }],
  },
  "handlers that cannot be installed are warned of": {
    changes: [
      [
        INT,
        INT.replace("return 1", 'fprintf(stderr, "no SIGINT\\n")') +
          INT.replace("SIGINT", "9").replace("return 1", 'fprintf(stderr, "no SIGKILL\\n")'),
      ],
      [TERM, TERM.replace("return 2", 'fprintf(stderr, "no SIGTERM\\n")')],
      [CHLD, CHLD.replace("return 3", 'fprintf(stderr, "no SIGCHLD\\n")')],
    ],
    runs: [prints, { ...ends, says: `no SIGKILL\n${MESSAGE}` }],
  },
  "handlers in a loop": {
    changes: [
      [INT, ""],
      [
        TERM,
        "  for (const [index, signo] of [SIGINT, SIGTERM].entries())\n    if (sigaction(signo, { sa_handler: sigdown }, NULL) < 0) return index + 1;\n",
      ],
    ],
    runs: asEver,
  },
  "handlers that are constants with a type, exported, or in an object": {
    changes: [
      [SIGREAP, `export const sigreap: (words: SignalSafe) => void = ({ waitpid }) => {\n${REAP}};\n`],
      ["function sigdown(", "const handlers = {\n  sigdown("],
      ["not async-signal-safe\n}", "not async-signal-safe\n}};"],
      [INT, INT.replace("sigdown", "handlers.sigdown")],
      [TERM, TERM.replace("sigdown", "handlers.sigdown")],
    ],
    runs: asEver,
  },
  "handlers that are called what the compiler calls its own": {
    changes: [
      after(
        IMPORTED,
        `\nconst names = {\n${["main", "text", "pause", "reap", "dumpable", "__restore_rt", "entry", "mask"]
          .map(
            (name) =>
              `  ${name}({ psignal }: SignalSafe, signo: number) {\n    psignal(signo, "${name}");\n  },\n`,
          )
          .join("")}};\n`,
      ),
      before(
        PAUSE,
        "  for (const [index, sa_handler] of Object.values(names).entries())\n" +
          `    if (sigaction([${OTHERS}][index] ?? 0, { sa_handler }, NULL) < 0) return 4;\n`,
      ),
    ],
    runs: asEver.map((run) => ({ ...run, catches: [2, 15, 17, ...OTHERS] })),
  },
  "a handler in another file": {
    changes: [
      [SIGREAP, ""],
      after(IMPORTED, 'import { sigreap } from "./reap.ts";\n'),
      ["SIGTERM, WNOHANG }", "SIGTERM }"],
    ],
    files: {
      "reap.ts":
        'import { NULL, WNOHANG } from "#ffi/constants.ts";\nimport type { SignalSafe } from "#ffi/libc.ts";\n\nexport ' +
        SIGREAP,
    },
    runs: asEver,
  },
};

/** What is refused: where, and what is said. */
interface Refusal {
  readonly changes: Changes;
  readonly files?: Readonly<Record<string, string>>;
  /** A text on the line that is named; "init.ts" if none is, or the place itself. */
  readonly at: string;
  readonly says: string;
}

const NO_ANSWER = "and not only the answers to its calls";
const NO_MEMORY = "a handler has no memory of its own";
const STATUS = "and an exit status is 0 to 255";
/** A refusal of what stands at the begin of main. */
const inMain = (text: string, says: string, ...changes: Changes): Refusal => ({
  changes: [after(MAIN, `  ${text}\n`), ...changes],
  at: text,
  says: `main ${says}`,
});
/** Of what stands before all functions. */
const inFile = (text: string, at: string, says: string): Refusal => ({
  changes: [after(IMPORTED, `\n${text}\n`)],
  at,
  says: `this file ${says}`,
});
/** Of what sigdown does besides. */
const inDown = (text: string, says: string, ...changes: Changes): Refusal => ({
  changes: [before(DOWN, `  ${text}\n`), ...changes],
  at: text,
  says: `sigdown ${says}`,
});
const counting = after(IMPORTED, "\nlet count = 0;\n");

const refused: Record<string, Refusal> = {
  // The issue's.
  "the pid in a message": inMain(
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is init.ts's
    "printf(`${getpid()}\\n`);",
    "uses the answer of getpid as a number: for 2 it goes another way than for 4194303",
  ),
  "a count of reaped children": {
    changes: [
      counting,
      [REAP, "  while (waitpid(-1, NULL, WNOHANG) > 0) count++;\n"],
      // biome-ignore lint/suspicious/noTemplateCurlyInString: it is init.ts's
      [DOWN, "  psignal(signo, `Shutting down after ${count}, got signal`);\n"],
    ],
    at: TERM,
    says: `main installs sigdown, which later does something else: ${NO_MEMORY}`,
  },
  "a count of signals": inDown(
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is init.ts's
    "psignal(signo, `${++count}`);",
    `does something else when it is run again: ${NO_MEMORY}`,
    counting,
  ),
  "the time": inMain("if (Date.now() % 2 === 0) return 5;", `uses Date, ${NO_ANSWER}`),
  "the time, hidden": inMain(
    "try { if (performance.now() > 1e9) return 5; } catch {}",
    `uses performance, ${NO_ANSWER}`,
  ),
  "the time in a handler": inDown("psignal(signo, new Date().toISOString());", `uses Date, ${NO_ANSWER}`),
  "an environment variable": inMain('if (process.env.QUIET === "1") return 5;', `uses process, ${NO_ANSWER}`),
  "an environment variable that bundlers know": inMain(
    'if (process.env.NODE_ENV === "production") return 5;',
    `uses process.env.NODE_ENV, ${NO_ANSWER}`,
  ),
  "an environment variable in a handler": inDown(
    "if (process.env.QUIET) _exit(0);",
    `uses process, ${NO_ANSWER}`,
  ),
  "an environment variable in the module": inFile(
    "const quiet = process.env.QUIET;",
    "process.env",
    `uses process, ${NO_ANSWER}`,
  ),
  "a main that loops without a call": {
    ...inMain(
      "for (let index = 0; index >= 0; index = (index + 1) % 5);",
      "does not end: it calls nothing any more",
    ),
    at: "init.ts",
  },
  "a main that throws": inMain('throw new RangeError("out\\nof range");', "throws RangeError: out of range"),
  "a main that returns 300": { ...inMain("return 300;", `returns 300, ${STATUS}`), at: "start(main);" },
  "a main that returns 300 after a message": {
    changes: [["    return 0;\n", "    return 300;\n"]],
    at: "printf(`init.ts",
    says: `main returns 300 after this, ${STATUS}`,
  },
  "a handler that an option changes after it is installed": {
    changes: [
      after(IMPORTED, "\nlet quiet = false;\n"),
      [DOWN, `  if (!quiet)\n  ${DOWN}`],
      before(PAUSE, option("-q", "quiet = true;")),
    ],
    at: TERM,
    says: `main installs sigdown, which later does something else: ${NO_MEMORY}`,
  },
  "console.error": inMain('console.error("started");', `uses console, ${NO_ANSWER}`),
  "process.pid in a handler": inDown("psignal(signo, String(process.pid));", `uses process, ${NO_ANSWER}`),
  "the time in the module": inFile("const started = Date.now();", "Date.now", `uses Date, ${NO_ANSWER}`),
  "node:process": inFile(
    'import process from "node:process";\nexport const id = process.pid;',
    "node:process",
    "imports node:process, and a program has only its words",
  ),
  "node:fs in another file": {
    changes: [after(IMPORTED, 'import { host } from "./host.ts";\n'), after(MAIN, "  printf(host());\n")],
    files: {
      "host.ts":
        '\nimport { readFileSync } from "node:fs";\nexport const host = () => readFileSync("/etc/hostname", "utf8");\n',
    },
    at: "host.ts:2",
    says: "this file imports node:fs, and a program has only its words",
  },
  "Bun in a helper": inFile(
    "const isX64 = () => Bun.nanoseconds() > 5;\nexport const x64 = isX64();",
    "Bun.nanoseconds",
    `uses Bun, ${NO_ANSWER}`,
  ),
  "require in a helper": inFile(
    'const hostname = () => require("node:os").hostname();\nexport const host = hostname();',
    "node:os",
    `uses require, ${NO_ANSWER}`,
  ),
  __filename: inMain("printf(__filename);", `uses __filename, ${NO_ANSWER}`),
  "import.meta": inMain("printf(import.meta.url);", `uses import.meta, ${NO_ANSWER}`),
  "10 optional messages": {
    changes: [
      before(
        PAUSE,
        lines(10, (index) => option(`-${index}`, `printf("option ${index}\\n");`)),
      ),
    ],
    at: "init.ts",
    says: "main has too many paths: up to 32768 by its answers, and 1024 can be followed",
  },
};

/** The line of a text, or the place itself. */
function placeOf(source: string, at: string): string {
  const index = source.split("\n").findIndex((line) => line.includes(at.trim().split("\n")[0] ?? ""));
  return index < 0 || at === "init.ts" ? at : `init.ts:${index + 1}`;
}

describe("an edit that works", () => {
  afterAll(() => rmSync(join(dist, "edits"), { recursive: true, force: true }));

  for (const [name, { changes, files, runs }] of Object.entries(works))
    test(name, async () => {
      using folder = folderOf({ "init.ts": edited("init.ts", changes), ...files });
      expect(build(folder.path, "build:freestanding")).toEqual({ exitCode: 0 });
      expect(build(folder.path, "build:hosted")).toEqual({ exitCode: 0 });
      expect(output([process.execPath, "check", "--no-script"], { cwd: folder.path })).toMatchObject({
        stdout: "",
      });
      for (const run of runs) {
        const found = await Promise.all(
          programsOf(folder.path).map(async (program) => [program.name, await outcome(program, run)]),
        );
        const one = expected(run);
        expect({ run, ...Object.fromEntries(found) }).toEqual({ run, hosted: one, freestanding: one });
      }
    });
});

describe("an edit that is refused", () => {
  for (const [name, { changes, files, at, says }] of Object.entries(refused))
    test(name, () => {
      const source = edited("init.ts", changes);
      using folder = folderOf({ "init.ts": source, ...files });
      const line = {
        stdout: "",
        stderr: `Error: ${placeOf(source, at)}: ${says}\n`,
        exitCode: 1,
        signalCode: null,
      };
      expect(build(folder.path, "build:freestanding")).toEqual(line);
      expect(build(folder.path, "build:hosted")).toEqual(line);
      expect(existsSync(join(folder.path, "dist"))).toBe(false);
    });
});
