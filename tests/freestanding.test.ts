/**
 * The freestanding executable: its file, its listing, every path of main on the real thing, and what is refused.
 */
import { afterAll, describe, expect, mock, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SIGCHLD } from "../ffi/constants.ts";
import { architectures as tables } from "../ffi/freestanding/architectures.ts";
import { explore, type Node, UnsupportedMain } from "../ffi/freestanding/explore.ts";
import { compile } from "../ffi/freestanding/start.ts";
import { type Handler, handler, type Libc, type Main, waitpid, whilePositive } from "../ffi/libc.ts";
import { architectures } from "./helpers/architectures.ts";
import { expectAlike, MESSAGE } from "./helpers/expect.ts";
import { inNewNamespace, outside, Pod } from "./helpers/pod.ts";
import { must, output, until } from "./helpers/process.ts";
import { dist, freestanding, type Program, root } from "./helpers/programs.ts";
import { PAUSE, untilAtRest } from "./helpers/rest.ts";
import { needs } from "./helpers/tools.ts";

/** init.ts's own main and handlers: instead of starting, it tells us. */
async function initTs(): Promise<{ main: Main; handlers: Record<string, Handler> }> {
  let told: { main: Main; handlers: Record<string, Handler> } | undefined;
  mock.module(join(root, "ffi/hosted/start.ts"), () => ({
    start(main: Main, handlers: Record<string, Handler>) {
      told = { main, handlers };
    },
  }));
  await import("../init.ts");
  mock.restore();
  if (told === undefined) throw new Error("init.ts does not start");
  return told;
}
const { main, handlers } = await initTs();
const tree = explore(main, handlers);
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
  ppc64le: [/^li +r0,(\d+)$/, /^sc/],
  riscv64: [/^addi\s+a7,zero,(\d+)$/, /^ecall/],
  s390x: [/^lghi\s+%r1,(\d+)$/, /^svc/],
};

for (const { name: architecture, objdump, needed } of architectures) {
  const { skip, name } = needs(needed.objdump);
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

  describe.skipIf(skip)(name(architecture), () => {
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

    const elflint = needs({ "eu-elflint": "elfutils", file: "file" });
    test.skipIf(elflint.skip)(elflint.name("eu-elflint and file have nothing to complain of"), () => {
      expect(must("eu-elflint", "--gnu-ld", executable(architecture))).toBe("No errors\n");
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
      const isLittleWords = ["arm", "arm64", "ppc64le", "riscv64"].includes(architecture);
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
        "argv.includes",
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
  readonly end: Node;
}

function pathsFrom(
  node: Node,
  path: Omit<Path, "end"> = { name: "", args: [], isPid1: false, refused: undefined },
): Path[] {
  if (!("call" in node)) return [{ ...path, end: node }];
  const { call, branches } = node;
  return branches.flatMap(({ when, node: next }) => {
    const otherwise = when === undefined;
    if (call.word === "argv.includes")
      return pathsFrom(next, {
        ...path,
        name: `${path.name} ${otherwise ? "without" : "with"} ${call.argument}`,
        args: otherwise ? path.args : [...path.args, "x", call.argument],
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
const strace = needs({ strace: "strace" });

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

async function outcome(program: Program, { args, isPid1, refused, end }: Path) {
  const command = [program.executable, ...args];
  const version = (stdout: string) => stdout.replace(program.version, "VERSION\n");
  if ("restWith" in end) {
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

describe.skipIf(strace.skip || process.getuid?.() !== 0)(
  strace.name("every path of main, beside the reference"),
  () => {
    const paths = pathsFrom(tree);

    test("there are as many as pause.c has", () => {
      // -v, -V, and for PID 1 and others: three refusals and the rest.
      expect(paths).toHaveLength(2 + 2 * 4);
    });

    for (const path of paths)
      test(`${path.name}: ${"exit" in path.end ? `exit ${path.end.exit}` : "rests"}`, async () => {
        const found = await expectAlike((program) => outcome(program, path));
        const expected = "exit" in path.end ? path.end.exit : 0;
        expect(found.exitCode).toBe(expected);
        const rests = "restWith" in path.end;
        const warned =
          path.args.length === 0 && !path.isPid1 ? "Warning: pause should be the first process\n" : "";
        expect(found.stderr).toBe(rests ? `${warned}${MESSAGE}` : warned);
      });
  },
);

const sigreap = handler([SIGCHLD], () => [whilePositive(waitpid(-1, null, 1))]);
const declared = { sigreap };
let outsideState = 0;
const flip = () => outsideState++ % 2 === 0;

/** Mains that are no function of their answers, with what is said of each. */
const refused: Record<string, [main: Main, says: RegExp]> = {
  "uses an answer as a number": [
    ({ getpid }) => (getpid() > 5 ? 1 : 0),
    /answer of getpid as a number: for 2 .* for 7/,
  ],
  "prints an answer": [
    ({ getpid, printf }) => {
      printf(`${getpid()}\n`);
      return 0;
    },
    /answer of getpid as a number/,
  ],
  "returns an answer": [({ printf }) => printf("x"), /answer of printf|no exit status/],
  "tells errors apart": [
    ({ sigaction }) => (sigaction(SIGCHLD, { sa_handler: sigreap }, null) === -22 ? 1 : 0),
    /answer of sigaction as a number/,
  ],
  "reads the time": [() => Date.now() % 2, /main uses Date/],
  "reads the time, and hides it": [
    () => {
      try {
        return Date.now() % 2;
      } catch {
        return 0;
      }
    },
    /main uses Date/,
  ],
  "measures the time": [() => (performance.now() > 1e9 ? 1 : 0), /main uses performance/],
  "throws dice": [() => (Math.random() < 0.5 ? 1 : 0), /main uses Math.random/],
  "keeps a state": [
    ({ getpid, printf }) => {
      if (flip()) printf("x");
      getpid();
      return 0;
    },
    /something else in the next|went another way|as a number/,
  ],
  "keeps a state that only its end shows": [() => (flip() ? 1 : 0), /went another way/],
  "asks what Bun knows": [() => Number(Bun.env.HOME === undefined), /main uses Bun/],
  "asks what its module knows": [() => Number(import.meta.env.HOME === undefined), /main uses import\.meta/],
  "writes the time": [() => new Intl.DateTimeFormat().format().length, /main uses Intl/],
  loops: [
    ({ getpid }) => {
      for (;;) getpid();
    },
    /does not end: getpid is its call number 100/,
  ],
  "pauses for a while": [
    ({ pause }) => {
      for (let index = 0; index < 500; index++) pause();
      return 0;
    },
    /after pause\(\), which has to be called forever/,
  ],
  "pauses, and goes on": [
    ({ pause, getpid }) => {
      pause();
      getpid();
      for (;;) pause();
    },
    /something else after pause\(\)/,
  ],
  "has a word that is missing": [
    (libc) => {
      (libc as Libc & { reboot(): void }).reboot();
      return 0;
    },
    /main uses reboot, which the freestanding build does not have/,
  ],
  "installs a handler that was not declared": [
    ({ sigaction }) => sigaction(SIGCHLD, { sa_handler: handler([SIGCHLD], () => []) }, null),
    /a handler that start was not given/,
  ],
  "installs a handler for another signal": [
    ({ sigaction }) => sigaction(1, { sa_handler: sigreap }, null),
    /sigreap was not declared for signal 1/,
  ],
  "returns no exit status": [() => 256, /main returns 256, which is no exit status/],
  throws: [
    () => {
      throw new RangeError("out of range");
    },
    /main throws: out of range/,
  ],
};

for (const [name, [wrong, says]] of Object.entries(refused))
  test(`a main that ${name} is refused, with the reason`, () => {
    expect(() => explore(wrong, declared)).toThrow(UnsupportedMain);
    expect(() => explore(wrong, declared)).toThrow(says);
    // What was out of its reach is back.
    expect(Date.now()).toBeGreaterThan(0);
  });

test("what is reached in two ways is written once", () => {
  const source = { name: "init.ts", lines: readFileSync(join(root, "init.ts"), "utf8").split("\n") };
  const [architecture] = [tables.amd64];
  if (architecture === undefined) throw new Error("no amd64");
  const { listing } = compile("amd64", architecture, tree, handlers, source);
  expect(listing.match(/printf\(`init/g)).toHaveLength(1);
  expect(listing.match(/for \(;;\) pause\(\)/g)).toHaveLength(1);
});

test("texts that are not ASCII are refused, not cut to other texts", () => {
  const { amd64 } = tables;
  if (amd64 === undefined) throw new Error("no amd64");
  const printing =
    (text: string): Main =>
    ({ printf }) => {
      printf(text);
      return 0;
    };
  const compiled = (text: string) =>
    compile("amd64", amd64, explore(printing(text), {}), {}, { name: "", lines: [] });
  expect(compiled("e\n").listing).toContain('"e\\n"');
  expect(() => compiled("\u00e9\n")).toThrow(RangeError);
});

test("a main that does not ask whether SIGCHLD is caught rests either way, and reaps only where it is", () => {
  const source = {
    name: "",
    lines: ["const sigreap = handler([SIGCHLD], () => [whilePositive(waitpid())]);"],
  };
  const careless: Main = ({ pause, sigaction }) => {
    sigaction(SIGCHLD, { sa_handler: sigreap }, null);
    for (;;) pause();
  };
  for (const [name, architecture] of Object.entries(tables)) {
    const { listing } = compile(name, architecture, explore(careless, declared), declared, source);
    expect(listing.match(/^(pause|reap)[.\d]*:$/gm)).toEqual(["reap.1:", "pause:", "pause.2:"]);
  }
});

const gdb = needs({ gdb: "gdb" });
test.skipIf(gdb.skip)(gdb.name("gdb stops in a handler and finds the way back to main"), () => {
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
