/**
 * The freestanding executable: its file, its listing, every path of main on the real thing, and what is refused.
 */
import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Script } from "node:vm";
import { AGAIN, CLASSES, type Node } from "../../ffi/explore.ts";
import { architectures as tables } from "../../ffi/freestanding/architectures.ts";
import { compileAll } from "../../ffi/freestanding/compile.ts";
import { record } from "../../ffi/freestanding/record.ts";
import { readSource } from "../../ffi/freestanding/world.ts";
import { architectures } from "../helpers/architectures.ts";
import { edited, folderOf } from "../helpers/edits.ts";
import { expectAlike, MESSAGE, needing } from "../helpers/expect.ts";
import { inNewNamespace, outside, Pod } from "../helpers/pod.ts";
import { must, output, until } from "../helpers/process.ts";
import { dist, freestanding, type Program, root } from "../helpers/programs.ts";
import { PAUSE, untilAtRest } from "../helpers/rest.ts";
import { ROOT } from "../helpers/tools.ts";

const { main: tree } = record(await readSource(join(root, "init.ts")));
const folder = mkdtempSync(join(tmpdir(), "pause-freestanding-"));
afterAll(() => rmSync(folder, { recursive: true }));

const executable = (architecture: string) => join(dist, "freestanding", architecture, "pause");

/** An instruction without white space, comments, symbols and the mark of hexadecimal before an address. */
const bare = (text: string): string =>
  text
    .replace(/\s*(# |\/\/|<|@ ).*$/, "")
    .replace(/0x(?=[0-9a-f]+$)/, "")
    .replace(/\s+/g, "");

/** How objdump says that the number of a system call is loaded. Its own instruction for the call comes next. */
const NUMBERS: Record<string, [load: RegExp, call: RegExp]> = {
  amd64: [/^mov +eax,0x([0-9a-f]+)$/, /^syscall/],
  arm: [/^mov[w]?\s+r7, #(\d+)/, /^svc/],
  arm64: [/^mov\s+x8, #0x([0-9a-f]+)/, /^svc/],
  loong64: [/^addi\.w\s+\$a7, \$zero, (\d+)$/, /^syscall/],
  ppc64le: [/^li +r0,(\d+)$/, /^sc/],
  riscv64: [/^addi\s+a7,zero,(\d+)$/, /^ecall/],
  s390x: [/^lghi\s+%r1,(\d+)$/, /^svc/],
};

for (const { name: architecture, elflint: lint, objdump, needed } of architectures) {
  const tools_ = needing(needed.objdump);
  const disassembly = () => {
    const text = must(...objdump(), "-d", "-w", executable(architecture));
    return Array.from(
      text.matchAll(/^ *([0-9a-f]+):\t((?:[0-9a-f]{2,8} )+) *\t(.*)$/gm),
      ([, address, bytes, code]) => ({
        address: address ?? "",
        bytes: (bytes ?? "").replaceAll(" ", ""),
        code: (code ?? "").replace(/\s+(# |\/\/|<|@ ).*$/, "").trim(),
      }),
    );
  };

  tools_.describe(architecture, () => {
    test("at most 2,048 bytes, of which 1,024 are loaded (arm64 and amd64) in one segment that is never written", () => {
      expect(Bun.file(executable(architecture)).size).toBeLessThanOrEqual(2048);
      const headers = must("readelf", "-lW", executable(architecture));
      const segments = [
        ...headers.matchAll(/^ {2}(\w+) +0x\S+ 0x\S+ 0x\S+ 0x(\S+) 0x(\S+) (...) 0x(\S+)$/gm),
      ];
      const [load, stack] = segments.map(([, type, file, memory, permissions, alignment]) => ({
        type,
        file: Number.parseInt(file ?? "", 16),
        memory: Number.parseInt(memory ?? "", 16),
        permissions,
        alignment: Number.parseInt(alignment ?? "", 16),
      }));
      expect(segments).toHaveLength(2);
      expect(load).toMatchObject({
        type: "LOAD",
        permissions: "R E",
        alignment: tables[architecture]?.pageSize,
      });
      expect(load?.file).toBe(load?.memory ?? 0);
      expect(stack).toMatchObject({ type: "GNU_STACK", permissions: "RW ", memory: 0 });
      expect(load?.memory).toBeLessThanOrEqual(/^a.*64$/.test(architecture) ? 1024 : 1280);
      expect(must("readelf", "-dW", executable(architecture))).toContain("no dynamic section");
      expect(must("readelf", "-rW", executable(architecture))).toContain("no relocations");
    });

    const elflint = needing(needed.elflint, { file: "file" });
    elflint.test("eu-elflint and file have nothing to complain of", () => {
      expect(must(...lint(), "--gnu-ld", executable(architecture))).toBe("No errors\n");
      expect(must("file", "-b", executable(architecture))).toMatch(
        /pie executable.*statically linked, not stripped/,
      );
      expect(output(["readelf", "-aW", executable(architecture)]).stderr).toBe("");
    });

    test("the listing says what objdump says, of every instruction", () => {
      const listing = readFileSync(`${executable(architecture)}.lst`, "utf8");
      const ours = Array.from(
        listing.matchAll(/^ +([0-9a-f]+): ((?:[0-9a-f]{2} )+) +(.*)$/gm),
        ([, address, bytes, code]) => ({
          address,
          bytes: bytes?.replaceAll(" ", ""),
          code: bare(code ?? ""),
        }),
      );
      const theirs = disassembly().map((line) => ({ ...line, code: bare(line.code) }));
      const isLittleWords = ["arm", "arm64", "loong64", "ppc64le", "riscv64"].includes(architecture);
      // objdump shows these as words.
      const reversed = (bytes = "") => (bytes.match(/../g) ?? []).reverse().join("");
      expect(theirs.length).toBeGreaterThan(100);
      expect(ours.map((line) => (isLittleWords ? { ...line, bytes: reversed(line.bytes) } : line))).toEqual(
        architecture === "ppc64le"
          ? theirs.map((line) => ({ ...line, bytes: reversed(line.bytes) }))
          : theirs,
      );
    });

    test("the listing names each routine, each text, and the line of init.ts for every call", () => {
      const listing = readFileSync(`${executable(architecture)}.lst`, "utf8");
      const names = must("nm", executable(architecture)).matchAll(/^[0-9a-f]+ . (\S+)$/gm);
      const symbols = Array.from(names, ([, symbol]) => symbol ?? "");
      for (const symbol of ["main", "sigdown.SIGINT", "sigdown.SIGTERM", "sigreap"])
        expect(symbols).toContain(symbol);
      for (const symbol of symbols) expect(listing).toContain(`\n${symbol}:\n`);
      const source = readFileSync(join(root, "init.ts"), "utf8").split("\n");
      const quoted = [...listing.matchAll(/; init\.ts:(\d+) {2}(.*)$/gm)];
      expect(quoted.length).toBeGreaterThan(10);
      for (const [, line, text] of quoted) expect(source[Number(line) - 1]?.trim()).toBe(text ?? "");
      for (const word of [
        "argv.some",
        "getpid()",
        "fprintf(",
        "pause()",
        "printf(",
        "psignal(",
        "_exit(",
        "waitpid(",
      ])
        expect(quoted.some(([, , text]) => text?.includes(word))).toBe(true);
    });

    test("it can make these system calls and no others", () => {
      const [load, call] = NUMBERS[architecture] ?? [/^$/, /^$/];
      const found = new Set<number>();
      let number: number | undefined;
      let made = 0;
      for (const { code } of disassembly()) {
        const loaded = load.exec(code)?.[1];
        if (loaded !== undefined) number = Number.parseInt(loaded, code.includes("0x") ? 16 : 10);
        if (!call.test(code)) continue;
        expect(number).toBeDefined();
        found.add(number ?? -1);
        number = undefined;
        made++;
      }
      const { systemCalls, pause, hasRestorer } = tables[architecture] ?? {};
      const { rt_sigreturn, ...others } = { rt_sigreturn: -1, ...systemCalls };
      const expected = [...Object.values(others), pause?.[0] ?? -1, ...(hasRestorer ? [rt_sigreturn] : [])];
      expect(made).toBeGreaterThan(10);
      expect([...found].toSorted()).toEqual(expected.toSorted());
    });
  });
}

/** One way through main: the answers that lead to its end. */
interface Path {
  readonly name: string;
  readonly args: string[];
  readonly isPid1: boolean;
  /** The signal for which sigaction fails. */
  readonly refused: number | undefined;
  /** undefined: it rests. */
  readonly exit: number | undefined;
}

function pathsFrom(
  node: Node | typeof AGAIN,
  path: Omit<Path, "exit"> = { name: "", args: [], isPid1: false, refused: undefined },
): Path[] {
  if (node === AGAIN || !("call" in node))
    return [{ ...path, exit: node !== AGAIN && "exit" in node ? node.exit : undefined }];
  const { call, branches } = node;
  return branches.flatMap((next, index) => {
    const when = CLASSES[call.word][index]?.[0];
    const otherwise = when === undefined;
    if (call.word === "argument")
      return pathsFrom(next, {
        ...path,
        name: `${path.name} ${otherwise ? "without" : "with"} ${call.text}`,
        args: otherwise ? path.args : [...path.args, "x", call.text.toUpperCase()],
      });
    if (call.word === "getpid")
      return pathsFrom(next, { ...path, name: `${path.name}, PID ${when ?? "not 1"}`, isPid1: when === 1 });
    if (call.word === "sigaction" && !otherwise)
      return pathsFrom(next, {
        ...path,
        name: `${path.name}, no sigaction(${call.signo})`,
        refused: call.signo,
      });
    return pathsFrom(next, path);
  });
}

const SIGNALS: Record<number, string> = { 2: "SIGINT", 15: "SIGTERM", 17: "SIGCHLD" };
const STRACE = { strace: "strace" };

/** Which of its calls of rt_sigaction a program makes for this signal. */
async function callFor(program: Program, signo: number, command: readonly string[]): Promise<number> {
  const file = join(folder, `${program.name}.strace`);
  rmSync(file, { force: true });
  await using tracer = Bun.spawn(
    ["strace", "-f", "-qq", "-o", file, "-e", `trace=rt_sigaction,${PAUSE},execve`, ...command],
    {
      stdio: ["ignore", "ignore", "ignore"],
    },
  );
  const text = () => (existsSync(file) ? readFileSync(file, "latin1") : "");
  await until("pause", () => text().includes(` ${PAUSE}(`), tracer);
  const [, pid = ""] = /^(\d+) +(?:pause|ppoll)\(/m.exec(text()) ?? [];
  process.kill(Number(pid), "SIGTERM");
  await tracer.exited;
  const lines = text()
    .split("\n")
    .filter((line) => line.startsWith(`${pid} `) && line.includes("rt_sigaction("));
  return 1 + lines.findLastIndex((line) => line.includes(`rt_sigaction(${SIGNALS[signo]}, {sa_handler=0x`));
}

async function outcome(program: Program, { args, isPid1, refused, exit }: Path) {
  const command = [program.executable, ...args];
  const version = (stdout: string) => stdout.replace(program.version, "VERSION\n");
  if (exit === undefined) {
    if (isPid1) {
      await using pod = await Pod.atRest(program);
      return await pod.end("SIGTERM");
    }
    await using child = outside(command);
    await untilAtRest(child, program);
    child.kill("SIGTERM");
    const [stdout, stderr] = await Promise.all(
      [child.stdout, child.stderr].map((stream) => new Response(stream).text()),
    );
    return { stdout, stderr, exitCode: await child.exited, signalCode: child.signalCode };
  }
  const inside = isPid1 ? inNewNamespace(...command) : command;
  if (refused === undefined) {
    const { stdout, ...rest } = output(inside);
    return { ...rest, stdout: version(stdout) };
  }
  const when = await callFor(program, refused, inside);
  const inject = ["-e", "trace=rt_sigaction", "-e", `inject=rt_sigaction:error=EINVAL:when=${when}`];
  return output(["strace", "-f", "-qq", "-o", "/dev/null", ...inject, ...inside]);
}

needing(ROOT, STRACE).describe("every path of main, beside the reference", () => {
  const paths = pathsFrom(tree);

  test("there are as many as pause.c has", () => {
    // -v, and for PID 1 and others: three refusals and the rest.
    expect(paths).toHaveLength(1 + 2 * 4);
  });

  for (const path of paths)
    test(`${path.name}: ${path.exit === undefined ? "rests" : `exit ${path.exit}`}`, async () => {
      const found = await expectAlike((program) => outcome(program, path));
      expect(found.exitCode).toBe(path.exit ?? 0);
      const rests = path.exit === undefined;
      const warned =
        path.args.length === 0 && !path.isPid1 ? "Warning: pause should be the first process\n" : "";
      expect(found.stderr).toBe(rests ? `${warned}${MESSAGE}` : warned);
    });
});

/** Compiles a program of which this is the body of main, and what stands before it. */
async function compiled(body: string, before = "") {
  mkdirSync(join(dist, "programs"), { recursive: true });
  const path = mkdtempSync(join(dist, "programs/"));
  const words = "{ argv, fprintf, getpid, pause, printf, sigaction, stderr, strcasecmp }";
  const sigreap = "function sigreap({ waitpid }) {\n  while (waitpid(-1, null, 1) > 0);\n}";
  const start = 'import { start } from "#ffi/start.ts";';
  try {
    writeFileSync(
      join(path, "program.ts"),
      `${start}\n${sigreap}\n${before}\nfunction main(${words}) {\n${body}\n}\nstart(main);\n`,
    );
    return await compileAll(join(path, "program.ts"));
  } finally {
    rmSync(path, { recursive: true });
  }
}
const INSTALL = "sigaction(17, { sa_handler: sigreap }, null);";

/** Mains that are no function of their answers, with what is said of each. */
const refused: Record<string, [body: string, says: RegExp, before?: string]> = {
  "uses an answer as a number": ["return getpid() > 5 ? 1 : 0;", /answer of getpid as a number: for 2/],
  "prints an answer": ["printf(String(getpid())); return 0;", /answer of getpid as a number/],
  "returns nothing": ['return printf("x");', /returns undefined/],
  "reads the time": ["return Date.now() % 2;", /main uses Date/],
  "reads the time, and hides it": ["try { return Date.now() % 2; } catch { return 0; }", /main uses Date/],
  "asks whether there is a process": ['return typeof process === "object" ? 1 : 0;', /main uses process/],
  "measures the time": ["return performance.now() > 1e9 ? 1 : 0;", /main uses performance/],
  "throws dice": ["return Math.random() < 0.5 ? 1 : 0;", /main throws TypeError/],
  "asks what Bun knows": ["return Number(Bun.env.HOME === undefined);", /main uses Bun/],
  "asks what its module knows": [
    "return Number(import.meta.env.HOME === undefined);",
    /main uses import\.meta/,
  ],
  "asks where it lies": ["return __filename.length;", /main uses __filename/],
  "asks what was built": ['return process.env.NODE_ENV === "x" ? 1 : 0;', /main uses process/],
  "writes the time": ["return new Intl.DateTimeFormat().format().length;", /main uses Intl/],
  "speaks while it is built": ['console.error("x"); return 0;', /main uses console/],
  "evaluates a text": ['return eval("1");', /main uses eval/],
  "makes a function of a text": ['return (() => {}).constructor("return 1")();', /main throws EvalError/],
  loops: ["for (;;) getpid();", /does not end/],
  "loops without a call": ["for (;;);", /main does not end: it calls nothing/],
  "pauses for a while": [
    "for (let index = 0; index < 500; index++) pause();\nreturn 0;",
    /after pause\(\)|times, and not/,
  ],
  "pauses, and goes on": ["pause();\ngetpid();\nfor (;;) pause();", /goes on after pause\(\)/],
  "has a word that is missing": ["reboot();\nreturn 0;", /main uses reboot/],
  "returns no exit status": ["return 300;", /main returns 300/],
  "wants another stack": [
    "sigaction(17, { sa_handler: sigreap, sa_flags: 0x08000000 }, null);\nfor (;;) pause();",
    /gives sigaction SA_ONSTACK/,
  ],
  throws: ['throw new RangeError("out of range");', /main throws RangeError: out of range/],
  "imports a module of Bun's": ["return 0;", /imports node:fs/, 'import "node:fs";'],
  "has a handler that counts": [
    `sigaction(15, { sa_handler: sigdown }, null);\n${INSTALL.replace("sigreap", "count")}\nfor (;;) pause();`,
    /no memory/,
    "let n = 0;\nfunction count({ waitpid }) { n++; while (waitpid(-1, null, 1) > 0); }\nfunction sigdown({ write }) { write(2, String(n)); }",
  ],
};

for (const [name, [body, says, before]] of Object.entries(refused))
  test(`a main that ${name} is refused, with the place and the reason`, async () => {
    const error = await compiled(body, before).then(() => undefined, String);
    expect(error).toMatch(says);
    expect(error).toMatch(/program\.ts(:\d+)?: /);
    expect(error).not.toContain("\n");
  });

test("what is reached in two ways is written once", () => {
  const listing = readFileSync(join(dist, "freestanding/amd64/pause.lst"), "utf8");
  expect(listing.match(/printf\(`init/g)).toHaveLength(1);
  expect(listing.match(/for \(;;\) pause\(\)/g)).toHaveLength(1);
});

test("texts that are not ASCII are refused, not cut to other texts", async () => {
  const listing = async (text: string) =>
    (await compiled(`printf("${text}");\nreturn 0;`)).get("amd64")?.listing;
  expect(await listing("e")).toContain('"e"');
  await expect(listing("\u00e9")).rejects.toThrow(/ASCII/);
});

test("a main that does not ask whether SIGCHLD is caught rests either way, and reaps only where it is", async () => {
  for (const { listing } of (await compiled(`${INSTALL}\nfor (;;) pause();`)).values())
    expect(listing.match(/\.(pause|reap):$/gm)).toEqual([".reap:", ".pause:", ".pause:"]);
});

test("a program that is too large for one architecture is refused for all, with its name and place", async () => {
  const text = "x".repeat(9000);
  await expect(compiled(`printf("${text}");\nreturn 0;`)).rejects.toThrow(/^program\.ts.*: amd64: /);
});

test("the listing quotes each call of a handler, the line of a function that calls, and other files", async () => {
  const program = [
    'import { start } from "#ffi/start.ts";',
    'import { text } from "./text.ts";',
    "function install(sigaction, signo) {",
    "  sigaction(signo, { sa_handler: sigdown }, null);",
    "}",
    "const sigdown = ({ psignal, _exit }, signo) => {",
    '  psignal(signo, "once");',
    '  psignal(signo, "twice");',
    "  _exit(3);",
    "};",
    "start(({ pause, printf, sigaction }) => {",
    "  for (const signo of [2, 15]) install(sigaction, signo);",
    "  [1, 3].forEach((signo) => sigaction(signo, { sa_handler: sigdown }, null));",
    "  printf(text());",
    "  for (;;) pause();",
    "});",
  ];
  const other = "export const text = () =>\n  more;\nconst more = 'more\\n';\n";
  using folder = folderOf({ "init.ts": program.join("\n"), "text.ts": other });
  const listing = (await compileAll(join(folder.path, "init.ts"))).get("amd64")?.listing ?? "";
  const quoted = Array.from(listing.matchAll(/^ {2}; init\.ts:(\d+) {2}(.*)$/gm), ([, line, text]) => {
    expect(program[Number(line) - 1]?.trim()).toBe(text ?? "");
    return Number(line);
  });
  expect([...new Set(quoted)].toSorted((one, other) => one - other)).toEqual([4, 7, 8, 9, 13, 14, 15]);
});

test("a call in another file is quoted from there", async () => {
  const program =
    'import { start } from "#ffi/start.ts";\nimport { print } from "./print.ts";\nstart((libc) => print(libc));\n';
  const other = "\nexport const print = ({ printf }) => {\n  printf('printed\\n');\n  return 0;\n};\n";
  using folder = folderOf({ "init.ts": program, "print.ts": other });
  const listing = (await compileAll(join(folder.path, "init.ts"))).get("amd64")?.listing;
  expect(listing).toContain("; print.ts:3  printf('printed\\n');\n");
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
  const at = (text: string) => runsOf(edited("init.ts", [[rest, text + rest]]));
  const message = (index: number) => `  printf("${index}\\n");\n`;
  const option = (index: number) =>
    `  if (argv.some((argument) => strcasecmp(argument, "-${index}") === 0)) printf("${index}\\n");\n`;
  const six = Array.from({ length: 6 }, (_, index) => index);
  const paths = 1 + 2 * (3 + 1);
  expect(await at("")).toBeLessThan(3 * paths);
  expect(await at(Array.from({ length: 25 }, (_, index) => message(index)).join(""))).toBeLessThan(3 * paths);
  expect(await at(six.map(option).join(""))).toBeLessThan(3 * (1 + 2 * (3 + 64)));
});

const gdb = needing({ gdb: "gdb" });
gdb.test("gdb stops in a handler and finds the way back to main", () => {
  const commands = [
    "set confirm off",
    `tcatch syscall ${PAUSE}`,
    "run",
    "break sigreap",
    "signal SIGCHLD",
    "backtrace",
    "kill",
  ];
  const { stdout } = output([
    "gdb",
    "-nx",
    "-batch",
    ...commands.flatMap((command) => ["-ex", command]),
    freestanding.executable,
  ]);
  const frames = [...stdout.matchAll(/^#(\d) +(?:0x\S+ in )?(<.*>|\S+)/gm)].map(([, , frame]) => frame);
  expect(frames.slice(-3)).toEqual(["sigreap", "<signal handler called>", "main"]);
});
