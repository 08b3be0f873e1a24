/**
 * What an editor of init.ts may write: both builds do what it says, or both refuse it in the same line.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { version } from "../../package.json" with { type: "json" };
import {
  build,
  type Changes,
  edited,
  expected,
  folderOf,
  outcome,
  programsOf,
  type Run,
} from "../helpers/edits.ts";
import { MESSAGE } from "../helpers/expect.ts";
import { output } from "../helpers/process.ts";
import { dist } from "../helpers/programs.ts";

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
    changes: [[DOWN, "  psignal(signo, 'Shutting down, got signal ' + signo);\n"]],
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
          "    if (sigaction(signo, { sa_handler: SIG_IGN }, NULL) < 0) fprintf(stderr, 'not ' + signo + '\\n');\n",
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
  "handlers that a function makes, or main": {
    changes: [
      before(
        "function main",
        "const saying = (text: string) => ({ stderr, write }: SignalSafe) => write(stderr, text);\n\n",
      ),
      before(
        PAUSE,
        '  const whoIs = getpid() === 1 ? "one\\n" : "another\\n";\n' +
          '  if (sigaction(1, { sa_handler: saying("HUP\\n") }, NULL) < 0) return 4;\n' +
          '  if (sigaction(3, { sa_handler: saying("QUIT\\n") }, NULL) < 0) return 5;\n' +
          "  if (sigaction(10, { sa_handler: ({ stderr, write }) => write(stderr, whoIs) }, NULL) < 0) return 6;\n",
      ),
    ],
    runs: [true, false].map((isPid1) => ({
      ...{ isPid1, catches: [1, 2, 3, 10, 15, 17], events: ["SIGHUP", "SIGUSR1", "SIGQUIT"] as const },
      says: `HUP\n${isPid1 ? "one" : "another"}\nQUIT\n`,
    })),
  },
  "a loop with its condition below, another with a bound, and an answer in a variable": {
    changes: [
      [
        SIGREAP,
        "function sigreap({ psignal, waitpid }: SignalSafe, signo: number): void {\n" +
          "  const isOne = waitpid(-1, NULL, WNOHANG) > 0;\n  do {} while (waitpid(-1, NULL, WNOHANG) > 0);\n" +
          '  for (let left = 3; left > 0 && waitpid(-1, NULL, WNOHANG) > 0; left--);\n  if (isOne) psignal(signo, "At least one");\n}\n',
      ],
    ],
    runs: [
      prints,
      {
        ...{ isPid1: true, events: ["orphan", "SIGCHLD", "orphan", "SIGTERM"] as const },
        ...{ says: `${"At least one: Child exited\n".repeat(2)}${MESSAGE}`, ends: 0 },
      },
    ],
  },
  "options in a list, without one, and both": {
    changes: [
      before(
        PAUSE,
        "  const has = (text: string) => argv.some((argument) => strcasecmp(argument, text) === 0);\n" +
          '  for (const text of ["", "[x]{|}~^_`@"]) if (has(text)) printf("got " + text + "\\n");\n' +
          '  if (!has("-q") && getpid() !== 1) printf("loud\\n");\n  if (has("-a") && has("-b")) printf("both\\n");\n',
      ),
    ],
    runs: [
      { ...ends, prints: "loud\n" },
      { ...ends, args: ["", "[X]{|}~^_`@"], prints: "got \ngot [x]{|}~^_`@\nloud\n" },
      { ...ends, args: ["{x]{|}~^_`@", "[x][|}~^_`@", "[x]{|}~^_``", "-Q", "-b"] },
      { ...ends, args: ["-b", "-q", "-A"], prints: "both\n" },
    ],
  },
  "what the language has": {
    changes: [
      before(
        "function main",
        "class Greeting {\n  readonly #names: readonly string[];\n  constructor(...names: string[]) {\n    this.#names = names;\n  }\n" +
          "  *[Symbol.iterator]() {\n    for (const name of this.#names.toSorted()) yield 'Hello ' + name + '\\n';\n  }\n" +
          "  get length(): bigint {\n    return 2n ** BigInt(this.#names.length);\n  }\n}\n" +
          "const faculty = (n: number): number => (n < 2 ? 1 : n * faculty(n - 1));\n\n",
      ),
      before(
        PAUSE,
        '  const greeting = new Greeting("you", "me");\n  for (const text of greeting) printf(text);\n' +
          "  printf([greeting.length, faculty(5), JSON.stringify([...new Set([1, 1])])].join(' ') + '\\n');\n",
      ),
    ],
    runs: [{ ...ends, prints: "Hello me\nHello you\n4 120 [1]\n" }],
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
    "printf(String(getpid()));",
    "uses the answer of getpid as a number: for 2 it goes another way than for 4194303",
  ),
  "a count of reaped children": {
    changes: [
      counting,
      [REAP, "  while (waitpid(-1, NULL, WNOHANG) > 0) count++;\n"],
      [DOWN, "  psignal(signo, 'Reaped ' + count);\n"],
    ],
    at: TERM,
    says: `main installs sigdown, which later does something else: ${NO_MEMORY}`,
  },
  "a count of signals": inDown(
    "psignal(signo, String(++count));",
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
  // Handlers.
  "a handler that prints with main's word": {
    changes: [before(PAUSE, '  sigaction(1, { sa_handler: () => fprintf(stderr, "HUP\\n") }, NULL);\n')],
    at: "HUP",
    says: "sa_handler calls a word of main here, and none is async-signal-safe",
  },
  "a handler that pauses": inDown(
    "(arguments[0] as Libc).pause();",
    "uses pause, which is not async-signal-safe here",
  ),
  "a handler that changes what main does": {
    changes: [
      after(IMPORTED, "\nlet down = false;\n"),
      before(DOWN, "  down = true;\n"),
      before(PAUSE, '  if (down) printf("down\\n");\n'),
    ],
    at: 'printf("down',
    says: "main goes another way when it is run again: a handler, or what argv.some is given, changes what main does",
  },
  "a handler that waits for main": {
    changes: [
      after(IMPORTED, "\nlet ready = true;\n"),
      before(DOWN, "  while (!ready);\n"),
      before(PAUSE, "  ready = false;\n"),
    ],
    at: "init.ts",
    says: "sigdown does not end: it calls nothing any more",
  },
  "an async handler": {
    changes: [
      ["function sigdown", "async function sigdown"],
      [": void {\n  psignal", ": Promise<void> {\n  psignal"],
    ],
    at: INT,
    says: "sigdown returns an object: a handler is no async function, and no generator",
  },
  "a handler that throws": inDown('if (signo === SIGTERM) throw new Error("no");', "throws Error: no"),
  "a handler that exits with 256": inDown("_exit(256);", "gives _exit 256, and an exit status is 0 to 255"),
  "a signal without a name": {
    changes: [before(PAUSE, "  if (sigaction(64, { sa_handler: sigdown }, NULL) < 0) return 4;\n")],
    at: DOWN,
    says: "sigdown gives psignal 64, a signal without a name",
  },
  "a message for each child": {
    changes: [
      [
        SIGREAP,
        "function sigreap({ psignal, waitpid }: SignalSafe, signo: number): void {\n" +
          '  while (waitpid(-1, NULL, WNOHANG) > 0) psignal(signo, "Reaped");\n}\n',
      ],
    ],
    at: "while (waitpid",
    says: "sigreap does not end: a loop can be of one call only",
  },
  "a loop until there is an error": {
    changes: [[REAP, REAP.replace("> 0", "!== -1")]],
    at: "while (waitpid",
    says: "sigreap uses the answer of waitpid as a number: for 0 it goes another way than for -1",
  },
  "a message if there were many": {
    changes: [
      [
        SIGREAP,
        "function sigreap({ waitpid, write }: SignalSafe): void {\n  let count = 0;\n" +
          '  while (waitpid(-1, NULL, WNOHANG) > 0) count++;\n  if (count > 1000) write(2, "many\\n");\n}\n',
      ],
    ],
    at: "while (waitpid",
    says: "sigreap goes another way when waitpid was called more often",
  },
  "at most 10,000 children": {
    changes: [[REAP, "  for (let i = 0; i < 10_000 && waitpid(-1, NULL, WNOHANG) > 0; i++);\n"]],
    at: "waitpid(-1",
    says: "sigreap goes another way when waitpid was called more often",
  },
  "at most 100 children": {
    changes: [[REAP, "  for (let i = 0; i < 100 && waitpid(-1, NULL, WNOHANG) > 0; i++);\n"]],
    at: "waitpid(-1",
    says: "sigreap makes a call more than 8 times, and not forever",
  },
  "10 times the same message": inDown(
    'for (let i = 0; i < 10; i++) psignal(signo, "Down");',
    "makes a call more than 8 times, and not forever",
  ),
  "10 asked at once": {
    changes: [[REAP, lines(5, () => "  waitpid(-1, NULL, WNOHANG);\n")]],
    at: CHLD,
    says: "sigreap has too many paths: up to 32 by its answers, and 16 can be followed",
  },
  // Arguments.
  "which of two options it was": {
    changes: [
      after(
        MAIN,
        '  let which = "none";\n  argv.some((argument) => {\n    for (const text of ["-a", "-b"])\n' +
          "      if (strcasecmp(argument, text) === 0) {\n        which = text;\n        return true;\n      }\n    return false;\n  });\n" +
          "  printf('which: ' + which);\n",
      ),
    ],
    at: "which: ",
    says: "main goes another way when it is run again: a handler, or what argv.some is given, changes what main does",
  },
  "whether there is any argument": {
    changes: [
      after(
        MAIN,
        '  let any = false;\n  argv.some((argument) => {\n    any = true;\n    return strcasecmp(argument, "-a") === 0;\n  });\n' +
          '  if (!any) printf("no argument\\n");\n',
      ),
    ],
    // Its next call: the one that it does not make for no argument is in the other run.
    at: 'strcasecmp(argument, "-v")',
    says: "main goes another way when it is run again: a handler, or what argv.some is given, changes what main does",
  },
  ...Object.fromEntries(
    [
      ["any argument but one", 'argv.some((argument) => strcasecmp(argument, "-a") !== 0);'],
      ["any argument at all", "argv.some(() => true);"],
      [
        "a range of arguments",
        'argv.some((a) => ["-b", "-d"].some((b) => strcasecmp(a, b) === 0) || (strcasecmp(a, "-b") > 0 && strcasecmp(a, "-d") < 0));',
      ],
    ].map(([name = "", text = ""]) => [
      name,
      inMain(text, "gives argv.some what is not strcasecmp(argument, text) === 0"),
    ]),
  ),
  "a message for each argument": inMain(
    'argv.some((argument) => { printf("x"); return strcasecmp(argument, "-a") === 0; });',
    "calls write for each argument",
  ),
  "an argument for later": {
    changes: [
      after(
        MAIN,
        '  const all: Parameters<typeof strcasecmp>[0][] = [];\n  argv.some((argument) => all.push(argument) < 0 || strcasecmp(argument, "-a") === 0);\n' +
          '  if (all.some((argument) => strcasecmp(argument, "-b") === 0)) return 5;\n',
      ),
    ],
    at: "all.some",
    says: "main gives strcasecmp what is not the argument that argv.some looks at",
  },
  "the number of arguments": inMain(
    "if ((argv as unknown as string[]).length > 0) return 5;",
    "uses argv.length, which is no word of main",
  ),
  // Texts.
  "a text that is not ASCII": inMain(
    'printf("\u00e9");',
    'gives write what is no text of ASCII characters: "\xc3\xa9"',
  ),
  "a text that is not ASCII, and main notices": inMain(
    'try { printf("\u00e9"); } catch { printf("e"); }',
    'gives write what is no text of ASCII characters: "\xc3\xa9"',
  ),
  "an option that is not ASCII": inMain(
    option("-\u00e9", "return 5;").trim(),
    'gives strcasecmp what is no text of ASCII characters: "-\xc3\xa9"',
  ),
  "a text that fits nowhere": inMain(
    'printf("x".repeat(2 ** 28));',
    "gives write a text of 268435456 characters",
  ),
  // What the two builds do not have in common.
  "its own name": inMain(
    "printf(main.name);",
    "goes another way when it is run again: it depends on names, or on not being in strict mode",
  ),
  "where an error was made": inMain(
    "printf(String((new Error() as unknown as { line: number }).line));",
    "goes another way when it is run again: it depends on names, or on not being in strict mode",
  ),
  "the global object": inMain("printf(typeof globalThis);", `uses globalThis, ${NO_ANSWER}`),
  chance: inMain(
    "if (Math.random() < 0.5) return 5;",
    "throws TypeError: Math.random is not a function. (In 'Math.random()', 'Math.random' is undefined)",
  ),
  "a word that there is not": inMain(
    'if ("reboot" in (arguments[0] as object)) return 5;',
    "uses reboot, which is no word of main",
  ),
  "a function of a text": inMain(
    'printf.constructor("return process.pid")();',
    "uses printf.constructor, which is no word of main",
  ),
  "an async main": {
    changes: [["function main", "async function main"]],
    at: PAUSE,
    says: "main returns [object Promise] after this, and an exit status is 0 to 255",
  },
  "an image": {
    changes: [after(IMPORTED, 'import image from "./image.png";\n'), after(MAIN, "  printf(image);\n")],
    files: { "image.png": "PNG" },
    at: "init.ts",
    says: "this file imports one that is neither a program nor a text",
  },
  // What is no program.
  "no main": {
    changes: [["start(main);", "start(undefined as never);"]],
    at: "start(",
    says: "this file gives start no main",
  },
  "no start": {
    changes: [["\nstart(main);\n", "\nvoid main;\n"]],
    at: "init.ts",
    says: "this file gives start no main",
  },
  "a start that waits": {
    changes: [["start(main);", "await 0;\nstart(main);"]],
    at: "await 0",
    says: '"await" can only be used inside an "async" function',
  },
  "a syntax error": {
    changes: [["for (;;) pause", "for (;; pause"]],
    at: "for (;;",
    says: 'Expected ")" but found ";"',
  },
  "a file that is not there": {
    changes: [after(IMPORTED, 'import { no } from "./no.ts";\nexport const yes = no;\n')],
    at: "./no.ts",
    says: 'Could not resolve: "./no.ts"',
  },
  "a throw of what is no error": {
    ...inMain("throw Object.create(null);", "throws an object"),
    at: "init.ts",
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
