/**
 * What an editor of init.ts may write: both builds do what it says, or both refuse it in the same line.
 */
import { afterAll, describe, expect } from "bun:test";
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
import { ended, MESSAGE, needing } from "../helpers/expect.ts";
import { NAMESPACES } from "../helpers/pod.ts";
import { output } from "../helpers/process.ts";
import { dist } from "../helpers/programs.ts";

const { test } = needing(NAMESPACES);

// Where init.ts is edited.
const IMPORTED = 'import { version as VERSION } from "./package.json" with { type: "json" };\n';
const MAIN = "}: Libc): number {\n";
const INT = "if (sigaction(SIGINT, { sa_handler: sigdown }, NULL) < 0) return 1;\n";
const TERM = "if (sigaction(SIGTERM, { sa_handler: sigdown }, NULL) < 0) return 2;\n";
const CHLD = "if (sigaction(SIGCHLD, { sa_handler: sigreap, sa_flags: SA_NOCLDSTOP }, NULL) < 0) return 3;\n";
const PAUSE = "for (;;) pause();\n";
const DOWN = 'psignal(signo, "Shutting down, got signal");\n';
const REAP = "while (waitpid(-1, NULL, WNOHANG) > 0);\n";
const SIGREAP = `function sigreap({ waitpid }: SignalSafe): void {\n  ${REAP}}\n`;

/** What a text that is put into init.ts changes, by where it is put. */
const places = {
  /** More names of ffi/constants.ts. */
  constants: (names: string) => ["import { NULL, ", `import { NULL, ${names}, `],
  /** After the imports. */
  file: (text: string) => [IMPORTED, `${IMPORTED}${text}\n`],
  /** Where main begins. */
  main: (text: string) => [MAIN, `${MAIN}${text}\n`],
  /** Before main pauses. */
  end: (text: string) => [PAUSE, `${text}\n${PAUSE}`],
  /** In place of sigdown's message. */
  down: (text: string) => [DOWN, `${text}\n`],
  /** In place of sigreap's loop. */
  reap: (text: string) => [REAP, `${text}\n`],
  /** In place of sigreap. */
  sigreap: (text: string) => [SIGREAP, `${text}\n`],
} satisfies Record<string, (text: string) => Changes[number]>;

type Place = keyof typeof places;
type Edit = { readonly [place in Place]?: string } & {
  readonly changes?: Changes;
  /** Other files. */
  readonly files?: Readonly<Record<string, string>>;
};

const initTs = ({ changes = [], ...texts }: Omit<Edit, "files">): string =>
  edited("init.ts", [
    ...Object.entries(texts).map(([place, text]) => places[place as Place](text)),
    ...changes,
  ]);

/** An option, and what it does. */
const option = (text: string, does: string) =>
  `if (argv.some((argument) => strcasecmp(argument, "${text}") === 0)) ${does}\n`;
const install = (signo: number | string, handler: string) =>
  `if (sigaction(${signo}, { sa_handler: ${handler} }, NULL) < 0) return 4;`;
/** Goes on where it cannot be installed, and says so. */
const warns = (line: string) => line.replace(/\((\w+)(, .*)return \d/, '($1$2fprintf(stderr, "no $1\\n")');
const lines = (count: number, line: (index: number) => string) =>
  Array.from({ length: count }, (_, index) => line(index)).join("");

const downBy = (description: string) => `Shutting down, got signal: ${description}\n`;
const prints: Run = { args: ["x", "-V"], isEarly: true, prints: `init.ts ${version}\n`, ends: 0 };
const ends: Run = { events: ["SIGTERM"], says: MESSAGE, ends: 0 };
const reaps: Run = {
  isPid1: true,
  events: ["orphan", "SIGCHLD", "SIGINT"],
  says: downBy("Interrupt"),
  ends: 0,
};
const hangsUp: Run = { events: ["SIGHUP"], says: downBy("Hangup"), ends: 0 };
/** As without the edit. */
const asEver = [prints, ends, reaps];

/** HUP, QUIT, USR1, USR2, ALRM, STKFLT, CONT, TSTP. */
const OTHERS = [1, 3, 10, 12, 14, 16, 18, 20];

const works: Record<string, Edit & { readonly runs: readonly Run[] }> = {
  nothing: { runs: asEver },
  "SIGHUP ends it like SIGTERM": {
    constants: "SIGHUP",
    end: install("SIGHUP", "sigdown"),
    files: {
      "ffi/constants.ts": edited("ffi/constants.ts", [
        ["export const SIGINT", "export const SIGHUP = 1;\nexport const SIGINT"],
      ]),
    },
    runs: [
      prints,
      ...[ends, reaps, hangsUp, { ...hangsUp, isPid1: true }].map((run) => ({
        ...run,
        catches: [1, 2, 15, 17],
      })),
    ],
  },
  "SIGUSR1 is ignored": {
    constants: "SIG_IGN",
    end: install(10, "SIG_IGN"),
    runs: [
      prints,
      { events: ["SIGUSR1"], ignores: [10] },
      { ...ends, events: ["SIGUSR1", "SIGTERM"] },
      { events: ["SIGUSR2"], ends: "SIGUSR2" },
    ],
  },
  "SIGTERM is what it was": {
    constants: "SIG_DFL",
    end: "sigaction(SIGTERM, { sa_handler: SIG_DFL }, NULL);",
    runs: [
      { catches: [2, 17], events: ["SIGTERM"], ends: "SIGTERM" },
      { ...reaps, catches: [2, 17], events: ["SIGTERM", "SIGINT"] },
    ],
  },
  "--version too": {
    changes: [['"-v") === 0', '"-v") === 0 || strcasecmp(argument, "--version") === 0']],
    runs: [
      ...asEver,
      { ...prints, args: ["--version"] },
      { ...prints, args: ["--versio", "--VERSION"] },
      { ...ends, args: ["--versions", "version", ""] },
    ],
  },
  "-h with a long text, and another exit code": {
    main: option("-h", `{ fprintf(stderr, "${"long ".repeat(500)}"); return 64; }`),
    runs: [...asEver, { args: ["-v", "-H"], isEarly: true, says: "long ".repeat(500), ends: 64 }],
  },
  "a second message": {
    end: 'printf("100 %s ready\\0\\n");',
    runs: [prints, { ...ends, prints: "100 %s ready\0\n" }, { ...reaps, prints: "100 %s ready\0\n" }],
  },
  SA_RESTART: {
    constants: "SA_RESTART",
    changes: [["SA_NOCLDSTOP }", "SA_NOCLDSTOP | SA_RESTART }"]],
    runs: asEver,
  },
  "SA_RESETHAND, which makes the flags negative": {
    constants: "SA_RESETHAND",
    file: 'const sigtwice = ({ psignal }: SignalSafe, signo: number) => psignal(signo, "Once more");',
    changes: [[INT, INT.replace("sigdown", "sigtwice, sa_flags: SA_NOCLDSTOP | SA_RESETHAND")]],
    runs: [
      ends,
      { events: ["SIGINT"], catchesThen: [15, 17], says: "Once more: Interrupt\n" },
      { events: ["SIGINT", "SIGINT"], catchesThen: [15, 17], says: "Once more: Interrupt\n", ends: "SIGINT" },
    ],
  },
  "the number of the signal in the message": {
    down: "psignal(signo, 'Shutting down, got signal ' + signo);",
    runs: [prints, { ...ends, says: "Shutting down, got signal 15: Terminated\n" }],
  },
  "a message that depends on the signal": {
    down: 'psignal(signo, signo === SIGINT ? "" : "Bye");',
    runs: [
      { events: ["SIGINT"], says: "Interrupt\n", ends: 0 },
      { ...ends, isPid1: true, says: "Bye: Terminated\n" },
    ],
  },
  "a handler that asks whether a child was dead": {
    sigreap: `function sigreap({ psignal, waitpid }: SignalSafe, signo: number): void {
      if (waitpid(-1, NULL, WNOHANG) > 0) psignal(signo, "Reaped");
      else psignal(signo, "Nobody");
    }`,
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
    sigreap: `function sigreap({ waitpid, write }: SignalSafe): void {\n${REAP}  write(2, "Reaped\\n");\n}`,
    runs: [
      prints,
      ends,
      { isPid1: true, events: ["orphan", "SIGTERM"], says: `Reaped\n${MESSAGE}`, ends: 0 },
    ],
  },
  "one handler for all signals": {
    file: `function sigany(words: SignalSafe, signo: number): void {
      switch (signo) {
        case SIGCHLD:
          return sigreap(words);
        default:
          return sigdown(words, signo);
      }
    }`,
    changes: [INT, TERM, CHLD].map((line) => [line, line.replace(/sigdown|sigreap/, "sigany")] as const),
    runs: asEver,
  },
  "another handler for SIGCHLD, later": {
    end: install("SIGCHLD", "sigdown"),
    runs: [ends, { ...ends, isPid1: true, events: ["SIGCHLD"], says: downBy("Child exited") }],
  },
  "SIGCHLD is ignored": {
    constants: "SIG_IGN",
    sigreap: "",
    changes: [
      ["SIGTERM, WNOHANG", "SIGTERM"],
      ["sa_handler: sigreap", "sa_handler: SIG_IGN"],
    ],
    runs: [
      { isPid1: true, catches: [2, 15], ignores: [17], events: ["orphan"] },
      { ...ends, isPid1: true, catches: [2, 15], events: ["orphan", "SIGTERM"] },
    ],
  },
  "SIGPWR, which Bun needs until it goes": {
    end: install(30, "sigdown"),
    runs: [{ catches: [2, 15, 17, 30], isPid1: true, events: [30], says: downBy("Power failure"), ends: 0 }],
  },
  "signals that there are not, that cannot be caught, and that glibc keeps": {
    constants: "SIG_IGN",
    end: `for (const signo of [-1, 0, 9, 19, 32, 33, 65])
      if (sigaction(signo, { sa_handler: SIG_IGN }, NULL) < 0) fprintf(stderr, 'not ' + signo + '\\n');`,
    runs: [{ ...ends, says: `not -1\nnot 0\nnot 9\nnot 19\nnot 32\nnot 33\nnot 65\n${MESSAGE}` }],
  },
  "main that catches and cleans up": {
    main: "try {",
    changes: [
      ["return 42;\n", 'return 42;\n} catch {\n  return 9;\n} finally {\n  fprintf(stderr, "bye\\n");\n}\n'],
    ],
    runs: [{ ...prints, says: "bye\n" }, ends, reaps],
  },
  "a handler that is installed with an option only": {
    changes: [[TERM, option("-t", `{ ${TERM} }`)]],
    runs: [
      { ...ends, args: ["-t"] },
      { catches: [2, 17], events: ["SIGTERM"], ends: "SIGTERM" },
      { ...reaps, catches: [2, 17] },
    ],
  },
  "a handler that does what an option says": {
    file: "let quiet = false;",
    main: option("-q", "quiet = true;"),
    down: `if (!quiet) ${DOWN}`,
    runs: [
      ...asEver,
      { ...ends, args: ["-Q"], says: "" },
      { ...ends, args: ["-q", "-q"], isPid1: true, says: "" },
    ],
  },
  "25 messages in a row": {
    end: lines(25, (index) => `fprintf(stderr, "message ${index}\\n");\n`),
    runs: [prints, { ...ends, says: lines(25, (index) => `message ${index}\n`) + MESSAGE }],
  },
  "6 optional messages": {
    end: lines(6, (index) => option(`-${index}`, `printf("option ${index}\\n");`)),
    runs: [...asEver, { ...ends, args: ["-5", "-3", "-0"], prints: "option 0\noption 3\noption 5\n" }],
  },
  "handlers that cannot be installed are warned of": {
    end: warns(install(9, "sigdown")),
    changes: [INT, TERM, CHLD].map((line) => [line, warns(line)] as const),
    runs: [prints, { ...ends, says: `no 9\n${MESSAGE}` }],
  },
  "handlers in a loop": {
    changes: [
      [INT, ""],
      [
        TERM,
        `for (const [index, signo] of [SIGINT, SIGTERM].entries())
          if (sigaction(signo, { sa_handler: sigdown }, NULL) < 0) return index + 1;\n`,
      ],
    ],
    runs: asEver,
  },
  "handlers that are constants with a type, exported, or in an object": {
    sigreap: `export const sigreap: (words: SignalSafe) => void = ({ waitpid }) => {\n${REAP}};`,
    changes: [
      ["function sigdown(", "const handlers = {\n  sigdown("],
      ["not async-signal-safe\n}", "not async-signal-safe\n}};"],
      [INT, INT.replace("sigdown", "handlers.sigdown")],
      [TERM, TERM.replace("sigdown", "handlers.sigdown")],
    ],
    runs: asEver,
  },
  "handlers that are called what the compiler calls its own": {
    file: `const names = {${["main", "text", "pause", "reap", "dumpable", "__restore_rt", "entry", "mask"]
      .map((name) => `${name}({ psignal }: SignalSafe, signo: number) { psignal(signo, "${name}"); },`)
      .join("\n")}};`,
    end: `for (const [index, sa_handler] of Object.values(names).entries())
      if (sigaction([${OTHERS}][index] ?? 0, { sa_handler }, NULL) < 0) return 4;`,
    runs: asEver.map((run) => ({ ...run, catches: [2, 15, 17, ...OTHERS] })),
  },
  "a handler in another file": {
    sigreap: "",
    file: 'import { sigreap } from "./reap.ts";',
    changes: [["SIGTERM, WNOHANG }", "SIGTERM }"]],
    files: {
      "reap.ts": `import { NULL, WNOHANG } from "#ffi/constants.ts";
import type { SignalSafe } from "#ffi/libc.ts";
export ${SIGREAP}`,
    },
    runs: asEver,
  },
  "handlers that a function makes, or main": {
    file: "const saying = (text: string) => ({ stderr, write }: SignalSafe) => write(stderr, text);",
    end: `const whoIs = getpid() === 1 ? "one\\n" : "another\\n";
      ${install(1, 'saying("HUP\\n")')}
      ${install(3, 'saying("QUIT\\n")')}
      ${install(10, "({ stderr, write }) => write(stderr, whoIs)")}`,
    runs: [true, false].map((isPid1) => ({
      isPid1,
      catches: [1, 2, 3, 10, 15, 17],
      events: ["SIGHUP", "SIGUSR1", "SIGQUIT"],
      says: `HUP\n${isPid1 ? "one" : "another"}\nQUIT\n`,
    })),
  },
  "a loop with its condition below, another with a bound, and an answer in a variable": {
    sigreap: `function sigreap({ psignal, waitpid }: SignalSafe, signo: number): void {
      const isOne = waitpid(-1, NULL, WNOHANG) > 0;
      do {} while (waitpid(-1, NULL, WNOHANG) > 0);
      for (let left = 3; left > 0 && waitpid(-1, NULL, WNOHANG) > 0; left--);
      if (isOne) psignal(signo, "At least one");
    }`,
    runs: [
      prints,
      {
        isPid1: true,
        events: ["orphan", "SIGCHLD", "orphan", "SIGTERM"],
        says: `${"At least one: Child exited\n".repeat(2)}${MESSAGE}`,
        ends: 0,
      },
    ],
  },
  "options in a list, without one, and both": {
    end: `const has = (text: string) => argv.some((argument) => strcasecmp(argument, text) === 0);
      for (const text of ["", "[x]{|}~^_\`@"]) if (has(text)) printf("got " + text + "\\n");
      if (!has("-q") && getpid() !== 1) printf("loud\\n");
      if (has("-a") && has("-b")) printf("both\\n");`,
    runs: [
      { ...ends, prints: "loud\n" },
      { ...ends, args: ["", "[X]{|}~^_`@"], prints: "got \ngot [x]{|}~^_`@\nloud\n" },
      { ...ends, args: ["{x]{|}~^_`@", "[x][|}~^_`@", "[x]{|}~^_``", "-Q", "-b"] },
      { ...ends, args: ["-b", "-q", "-A"], prints: "both\n" },
    ],
  },
  "what the language has": {
    file: `class Greeting {
        readonly #names: readonly string[];
        constructor(...names: string[]) {
          this.#names = names;
        }
        *[Symbol.iterator]() {
          for (const name of this.#names.toSorted()) yield 'Hello ' + name + '\\n';
        }
        get length(): bigint {
          return 2n ** BigInt(this.#names.length);
        }
      }
      const faculty = (n: number): number => (n < 2 ? 1 : n * faculty(n - 1));`,
    end: `const greeting = new Greeting("you", "me");
      for (const text of greeting) printf(text);
      printf([greeting.length, faculty(5), JSON.stringify([...new Set([1, 1])])].join(' ') + '\\n');`,
    runs: [{ ...ends, prints: "Hello me\nHello you\n4 120 [1]\n" }],
  },
};

/** What is refused: where, and what is said. */
type Refusal = Edit & {
  /** A text on the line that is named, or the place itself. Without it, it is the first text that is put in. */
  readonly at?: string;
  readonly says: string;
};

const NO_MEMORY = "a handler has no memory of its own";
const CHANGED = `main installs sigdown, which later does something else: ${NO_MEMORY}`;
const STATUS = "and an exit status is 0 to 255";
const PID = "main uses the answer of getpid as a number: for 2 it goes another way than for 4194303";
const AGAIN = "main goes another way when it is run again";
const INFLUENCED = `${AGAIN}: a handler, or what argv.some is given, changes what main does`;
const NAMED = `${AGAIN}: it depends on names, or on not being in strict mode`;
const ONE_CALL = "does not end: a loop can be of one call only";
const ENDLESS = "does not end: it calls nothing any more";
const PAUSED = "main goes on after pause(), which it has to call forever";
const NOT_FOREVER = "makes a call more than 8 times, and not forever";
const OFTEN = "sigreap goes another way when waitpid was called more often";
const NO_SEARCH = "main gives argv.some what is not strcasecmp(argument, text) === 0";
const E_ACUTE = 'what is no text of ASCII characters: "\xc3\xa9"';

/** A refusal of what is not the program's own. */
const uses = (what: string, edit: Edit): Refusal => ({
  ...edit,
  says: `${edit.main ? "main" : edit.down ? "sigdown" : "this file"} uses ${what}, and not only the answers to its calls`,
});

const refused: Record<string, Refusal> = {
  "the pid in a message": { main: "printf(String(getpid()));", says: PID },
  "the pid, compared": { main: "return getpid() > 5 ? 1 : 0;", says: PID },
  "a count of reaped children": {
    file: "let count = 0;",
    reap: "while (waitpid(-1, NULL, WNOHANG) > 0) count++;",
    down: "psignal(signo, 'Reaped ' + count);",
    at: TERM,
    says: CHANGED,
  },
  "a count of signals": {
    down: "psignal(signo, String(++count));",
    file: "let count = 0;",
    says: `sigdown does something else when it is run again: ${NO_MEMORY}`,
  },
  "a handler that an option changes after it is installed": {
    file: "let quiet = false;",
    down: `if (!quiet) ${DOWN}`,
    end: option("-q", "quiet = true;"),
    at: TERM,
    says: CHANGED,
  },
  // What is not the world's own.
  "the time": uses("Date", { main: "if (Date.now() % 2 === 0) return 5;" }),
  "the time, hidden": uses("performance", {
    main: "try { if (performance.now() > 1e9) return 5; } catch {}",
  }),
  "the time in a handler": uses("Date", { down: "psignal(signo, new Date().toISOString());" }),
  "the time in the module": uses("Date", { file: "const started = Date.now();" }),
  "the time, formatted": uses("Intl", { main: "printf(new Intl.DateTimeFormat().format());" }),
  "an environment variable": uses("process", { main: 'if (process.env.QUIET === "1") return 5;' }),
  "an environment variable that bundlers know": uses("process.env.NODE_ENV", {
    main: 'if (process.env.NODE_ENV === "production") return 5;',
  }),
  "an environment variable of Bun's": uses("Bun", { main: "if (Bun.env.HOME === undefined) return 5;" }),
  "an environment variable of the module's": uses("import.meta", {
    main: "if (import.meta.env.HOME === undefined) return 5;",
  }),
  "an environment variable in a handler": uses("process", { down: "if (process.env.QUIET) _exit(0);" }),
  "an environment variable in the module": uses("process", { file: "const quiet = process.env.QUIET;" }),
  "whether there is a process": {
    ...uses("process", { main: 'if (typeof process === "object") return 5;' }),
    at: "function main", // JavaScriptCore has no line for it
  },
  "console.error": uses("console", { main: 'console.error("started");' }),
  "process.pid in a handler": uses("process", { down: "psignal(signo, String(process.pid));" }),
  "node:process": {
    file: 'import process from "node:process";\nexport const id = process.pid;',
    says: "this file imports node:process, and a program has only its words",
  },
  "node:fs, of which nothing is used": {
    file: 'import "node:fs";',
    says: "this file imports node:fs, and a program has only its words",
  },
  "node:fs in another file": {
    file: 'import { host } from "./host.ts";',
    main: "printf(host());",
    files: {
      "host.ts":
        '\nimport { readFileSync } from "node:fs";\nexport const host = () => readFileSync("/etc/hostname", "utf8");\n',
    },
    at: "host.ts:2",
    says: "this file imports node:fs, and a program has only its words",
  },
  "Bun in a helper": uses("Bun", {
    file: "const isX64 = () => Bun.nanoseconds() > 5;\nexport const x64 = isX64();",
  }),
  "require in a helper": uses("require", {
    file: 'const hostname = () => require("node:os").hostname();\nexport const host = hostname();',
  }),
  __filename: uses("__filename", { main: "printf(__filename);" }),
  "import.meta": uses("import.meta", { main: "printf(import.meta.url);" }),
  "the global object": uses("globalThis", { main: "printf(typeof globalThis);" }),
  eval: uses("eval", { main: "eval('1');" }),
  "a function of a text": {
    main: '(() => {}).constructor("return 1")();',
    says: "main throws EvalError: Code generation from strings disallowed for this context",
  },
  "a function of a text, by a word": {
    main: 'printf.constructor("return process.pid")();',
    says: "main uses printf.constructor, which is no word of main",
  },
  chance: {
    main: "if (Math.random() < 0.5) return 5;",
    says: "main throws TypeError: Math.random is not a function. (In 'Math.random()', 'Math.random' is undefined)",
  },
  "a word that there is not": {
    main: 'if ("reboot" in (arguments[0] as object)) return 5;',
    says: "main uses reboot, which is no word of main",
  },
  "a function that there is not": uses("reboot", { main: "reboot();" }),
  // How main ends.
  "a main that loops without a call": {
    main: "for (let index = 0; index >= 0; index = (index + 1) % 5);",
    at: "init.ts",
    says: `main ${ENDLESS}`,
  },
  "a main that calls for ever": { main: "for (;;) getpid();", says: `main ${ONE_CALL}` },
  "a main that pauses for a while": {
    main: "for (let index = 0; index < 500; index++) pause();",
    says: PAUSED,
  },
  "a main that pauses, and goes on": { main: "pause();\ngetpid();", says: PAUSED },
  "a main that throws": {
    main: 'throw new RangeError("out\\nof range");',
    says: "main throws RangeError: out of range",
  },
  "a throw of what is no error": {
    main: "throw Object.create(null);",
    at: "init.ts",
    says: "main throws an object",
  },
  "a main that returns 300": { main: "return 300;", at: "start(main);", says: `main returns 300, ${STATUS}` },
  "a main that returns 300 after a message": {
    changes: [["return 0;\n", "return 300;\n"]],
    at: "printf(`init.ts",
    says: `main returns 300 after this, ${STATUS}`,
  },
  "a main that returns nothing": {
    main: 'return printf("x") as never;',
    says: `main returns undefined after this, ${STATUS}`,
  },
  "an async main": {
    changes: [["function main", "async function main"]],
    at: PAUSE,
    says: `main returns [object Promise] after this, ${STATUS}`,
  },
  "10 optional messages": {
    end: lines(10, (index) => option(`-${index}`, `printf("option ${index}\\n");`)),
    at: "init.ts",
    says: "main has too many paths: up to 32768 by its answers, and 1024 can be followed",
  },
  // Handlers.
  "a handler that prints with main's word": {
    end: 'sigaction(1, { sa_handler: () => fprintf(stderr, "HUP\\n") }, NULL);',
    says: "sa_handler calls a word of main here, and none is async-signal-safe",
  },
  "a handler that pauses": {
    down: "(arguments[0] as Libc).pause();",
    says: "sigdown uses pause, which is not async-signal-safe here",
  },
  "a handler on another stack": {
    changes: [["sa_flags: SA_NOCLDSTOP", "sa_flags: 0x08000000"]],
    at: "0x08000000",
    says: "main gives sigaction SA_ONSTACK, and there is no other stack",
  },
  "a handler that changes what main does": {
    end: 'if (down) printf("down\\n");',
    file: "let down = false;",
    down: "down = true;",
    says: INFLUENCED,
  },
  "a handler that waits for main": {
    file: "let ready = true;",
    down: "while (!ready);",
    end: "ready = false;",
    at: "init.ts",
    says: `sigdown ${ENDLESS}`,
  },
  "an async handler": {
    changes: [
      ["function sigdown", "async function sigdown"],
      [": void {\n  psignal", ": Promise<void> {\n  psignal"],
    ],
    at: INT,
    says: "sigdown returns an object: a handler is no async function, and no generator",
  },
  "a handler that throws": {
    down: 'if (signo === SIGTERM) throw new Error("no");',
    says: "sigdown throws Error: no",
  },
  "a handler that exits with 256": {
    down: "_exit(256);",
    says: "sigdown gives _exit 256, and an exit status is 0 to 255",
  },
  "a signal without a name": {
    end: install(64, "sigdown"),
    at: DOWN,
    says: "sigdown gives psignal 64, a signal without a name",
  },
  "a message for each child": {
    sigreap: `function sigreap({ psignal, waitpid }: SignalSafe, signo: number): void {
      while (waitpid(-1, NULL, WNOHANG) > 0) psignal(signo, "Reaped");
    }`,
    at: "while (waitpid",
    says: `sigreap ${ONE_CALL}`,
  },
  "a loop until there is an error": {
    reap: REAP.replace("> 0", "!== -1"),
    says: "sigreap uses the answer of waitpid as a number: for 0 it goes another way than for -1",
  },
  "a message if there were many": {
    sigreap: `function sigreap({ waitpid, write }: SignalSafe): void {
      let count = 0;
      while (waitpid(-1, NULL, WNOHANG) > 0) count++;
      if (count > 1000) write(2, "many\\n");
    }`,
    at: "while (waitpid",
    says: OFTEN,
  },
  "at most 10,000 children": {
    reap: "for (let i = 0; i < 10_000 && waitpid(-1, NULL, WNOHANG) > 0; i++);",
    says: OFTEN,
  },
  "at most 100 children": {
    reap: "for (let i = 0; i < 100 && waitpid(-1, NULL, WNOHANG) > 0; i++);",
    says: `sigreap ${NOT_FOREVER}`,
  },
  "10 times the same message": {
    down: 'for (let i = 0; i < 10; i++) psignal(signo, "Down");',
    says: `sigdown ${NOT_FOREVER}`,
  },
  "5 asked at once": {
    reap: lines(5, () => "waitpid(-1, NULL, WNOHANG);\n"),
    at: CHLD,
    says: "sigreap has too many paths: up to 32 by its answers, and 16 can be followed",
  },
  // Arguments.
  "which of two options it was": {
    main: `let which = "none";
      argv.some((argument) => {
        for (const text of ["-a", "-b"])
          if (strcasecmp(argument, text) === 0) {
            which = text;
            return true;
          }
        return false;
      });
      printf('which: ' + which);`,
    at: "which: ",
    says: INFLUENCED,
  },
  "whether there is any argument": {
    main: `let any = false;
      argv.some((argument) => {
        any = true;
        return strcasecmp(argument, "-a") === 0;
      });
      if (!any) printf("no argument\\n");`,
    // Its next call: the one that it does not make for no argument is in the other run.
    at: 'strcasecmp(argument, "-v")',
    says: INFLUENCED,
  },
  "any argument but one": {
    main: 'argv.some((argument) => strcasecmp(argument, "-a") !== 0);',
    says: NO_SEARCH,
  },
  "any argument at all": { main: "argv.some(() => true);", says: NO_SEARCH },
  "a range of arguments": {
    main: 'argv.some((a) => ["-b", "-d"].some((b) => strcasecmp(a, b) === 0) || (strcasecmp(a, "-b") > 0 && strcasecmp(a, "-d") < 0));',
    says: NO_SEARCH,
  },
  "a message for each argument": {
    main: 'argv.some((argument) => { printf("x"); return strcasecmp(argument, "-a") === 0; });',
    says: "main calls write for each argument",
  },
  "an argument for later": {
    main: `const all: Parameters<typeof strcasecmp>[0][] = [];
      argv.some((argument) => all.push(argument) < 0 || strcasecmp(argument, "-a") === 0);
      if (all.some((argument) => strcasecmp(argument, "-b") === 0)) return 5;`,
    at: "all.some",
    says: "main gives strcasecmp what is not the argument that argv.some looks at",
  },
  "the number of arguments": {
    main: "if ((argv as unknown as string[]).length > 0) return 5;",
    says: "main uses argv.length, which is no word of main",
  },
  // Texts.
  "a text that is not ASCII": { main: 'printf("\u00e9");', says: `main gives write ${E_ACUTE}` },
  "a text that is not ASCII, and main notices": {
    main: 'try { printf("\u00e9"); } catch { printf("e"); }',
    says: `main gives write ${E_ACUTE}`,
  },
  "an option that is not ASCII": {
    main: option("-\u00e9", "return 5;"),
    says: `main gives strcasecmp ${E_ACUTE.replace('"', '"-')}`,
  },
  "a text that fits nowhere": {
    main: 'printf("x".repeat(2 ** 28));',
    says: "main gives write a text of 268435456 characters",
  },
  "a text that fits into no executable": {
    main: 'printf("x".repeat(9000));',
    at: "init.ts",
    says: "amd64: the routines fill more than their memory",
  },
  // What the two builds do not have in common.
  "its own name": { main: "printf(main.name);", says: NAMED },
  "where an error was made": {
    main: "printf(String((new Error() as unknown as { line: number }).line));",
    says: NAMED,
  },
  // What is no program.
  "an image": {
    file: 'import image from "./image.png";',
    main: "printf(image);",
    files: { "image.png": "PNG" },
    at: "init.ts",
    says: "this file imports one that is neither a program nor a text",
  },
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
    file: 'import { no } from "./no.ts";\nexport const yes = no;',
    says: 'Could not resolve: "./no.ts"',
  },
};

/** The line of a text, or the place itself. */
function placeOf(source: string, at: string): string {
  const index = source.split("\n").findIndex((line) => line.includes(at.trim().split("\n")[0] ?? ""));
  return index < 0 || at === "init.ts" ? at : `init.ts:${index + 1}`;
}

describe("an edit that works", () => {
  afterAll(() => rmSync(join(dist, "edits"), { recursive: true, force: true }));

  for (const [name, { runs, files, ...edit }] of Object.entries(works))
    test(name, async () => {
      using folder = folderOf({ "init.ts": initTs(edit), ...files });
      expect(build(folder.path, "build:freestanding")).toEqual({ exitCode: 0 });
      expect(build(folder.path, "build:hosted")).toEqual({ exitCode: 0 });
      const check = output([process.execPath, "check", "--no-script"], { cwd: folder.path });
      expect(check).toMatchObject({ stdout: "" });
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
  for (const [name, { says, at, files, ...edit }] of Object.entries(refused))
    test(name, () => {
      const source = initTs(edit);
      using folder = folderOf({ "init.ts": source, ...files });
      const place = placeOf(source, at ?? String(Object.values(edit)[0]));
      const line = ended({ stderr: `Error: ${place}: ${says}\n`, exitCode: 1 });
      expect(build(folder.path, "build:freestanding")).toEqual(line);
      expect(build(folder.path, "build:hosted")).toEqual(line);
      expect(existsSync(join(folder.path, "dist"))).toBe(false);
    });
});
