/**
 * Every path of main on the real thing, both builds beside the reference; and gdb in the freestanding executable.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { AGAIN, CLASSES, type Node } from "../../ffi/explore.ts";
import { record } from "../../ffi/freestanding/record.ts";
import { readSource } from "../../ffi/freestanding/world.ts";
import { expectAlike, MESSAGE, needing, WARNING } from "../helpers/expect.ts";
import { inNewNamespace, outside, Pod } from "../helpers/pod.ts";
import { output } from "../helpers/process.ts";
import { freestanding, type Program, root } from "../helpers/programs.ts";
import { PAUSE, untilAtRest } from "../helpers/rest.ts";
import { handlerOf, injectCommand, STRACE } from "../helpers/strace.ts";
import { ROOT } from "../helpers/tools.ts";

const { main: tree } = record(await readSource(join(root, "init.ts")));

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
    const then = (name: string, change: Partial<Path>) =>
      pathsFrom(next, { ...path, name: `${path.name}${name}`, ...change });
    if (call.word === "argument")
      return then(
        ` ${otherwise ? "without" : "with"} ${call.text}`,
        otherwise ? {} : { args: [...path.args, "x", call.text.toUpperCase()] },
      );
    if (call.word === "getpid") return then(`, PID ${when ?? "not 1"}`, { isPid1: when === 1 });
    if (call.word === "sigaction" && !otherwise)
      return then(`, no sigaction(${call.signo})`, { refused: call.signo });
    if (branches.length > 1 && call.word !== "sigaction") throw new Error(`no path for ${call.word}`);
    return then("", {});
  });
}

const SIGNALS: Record<number, string> = { 2: "SIGINT", 15: "SIGTERM", 17: "SIGCHLD" };

async function outcome(program: Program, { args, isPid1, refused, exit }: Path) {
  const command = [program.executable, ...args];
  if (exit === undefined) {
    await using subject = isPid1 ? await Pod.start(command) : outside(command);
    await untilAtRest(subject, program);
    return await subject.end("SIGTERM");
  }
  const inside = isPid1 ? inNewNamespace(...command) : command;
  if (refused === undefined) {
    const { stdout, ...rest } = output(inside);
    return { ...rest, stdout: stdout.replace(program.version, "VERSION\n") };
  }
  const when = await handlerOf(SIGNALS[refused] ?? "", program.executable);
  // -f: unshare is what starts.
  return output(injectCommand("rt_sigaction", `error=EINVAL:when=${when}`, "-f", ...inside));
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
      const warned = path.args.length === 0 && !path.isPid1 ? WARNING : "";
      expect(found.stderr).toBe(warned + (path.exit === undefined ? MESSAGE : ""));
    });
});

needing({ gdb: "gdb" }).test("gdb stops in a handler and finds the way back to main", () => {
  const commands = [
    "set confirm off",
    `tcatch syscall ${PAUSE}`,
    "run",
    "break sigreap",
    "signal SIGCHLD",
    "backtrace",
    "kill",
  ].flatMap((command) => ["-ex", command]);
  const { stdout } = output(["gdb", "-nx", "-batch", ...commands, freestanding.executable]);
  const frames = [...stdout.matchAll(/^#(\d) +(?:0x\S+ in )?(<.*>|\S+)/gm)].map(([, , frame]) => frame);
  expect(frames.slice(-3)).toEqual(["sigreap", "<signal handler called>", "main"]);
});
