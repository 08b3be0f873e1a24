/**
 * What an editor of init.ts may write: both builds do what it says, or both refuse it in the same line.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
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
import { dist, root } from "./helpers/programs.ts";

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
      { events: ["SIGINT"], says: "Once more: Interrupt\n" },
      { events: ["SIGINT", "SIGINT"], says: "Once more: Interrupt\n", ends: "SIGINT" },
    ],
  },
  "the number of the signal in the message": {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is a template in the edited file
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
    changes: [constants("SIG_IGN"), ["sa_handler: sigreap", "sa_handler: SIG_IGN"]],
    runs: [{ isPid1: true, catches: [2, 15], events: ["orphan", "SIGTERM"], says: MESSAGE, ends: 0 }],
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
      [INT, INT.replace("return 1", 'fprintf(stderr, "no SIGINT\\n")').replace("SIGINT", "9")],
      [TERM, TERM.replace("return 2", 'fprintf(stderr, "no SIGTERM\\n")')],
      [CHLD, CHLD.replace("return 3", 'fprintf(stderr, "no SIGCHLD\\n")')],
    ],
    runs: [prints, { ...ends, catches: [15, 17], says: `no SIGINT\n${MESSAGE}` }],
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
          `    sigaction([${OTHERS}][index] ?? 0, { sa_handler }, NULL);\n`,
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

describe("an edit that works", () => {
  afterAll(() => rmSync(join(dist, "edits"), { recursive: true, force: true }));

  for (const [name, { changes, files, runs }] of Object.entries(works))
    test(name, async () => {
      using folder = folderOf({ "init.ts": edited("init.ts", changes), ...files });
      expect(build(folder.path, "build:freestanding")).toEqual({ exitCode: 0 });
      expect(build(folder.path, "build:hosted")).toEqual({ exitCode: 0 });
      for (const run of runs) {
        const found = await Promise.all(
          programsOf(folder.path).map(async (program) => [program.name, await outcome(program, run)]),
        );
        const one = expected(run);
        expect({ run, ...Object.fromEntries(found) }).toEqual({ run, hosted: one, freestanding: one });
      }
    });

  test("the type checker agrees", () => {
    using stack = new DisposableStack();
    const files = Object.values(works).map(({ changes, files }) =>
      join(stack.use(folderOf({ "init.ts": edited("init.ts", changes), ...files })).path, "init.ts"),
    );
    expect(output(["bun", "check", "--no-script", ...files], { cwd: root })).toMatchObject({ exitCode: 0 });
  });
});
