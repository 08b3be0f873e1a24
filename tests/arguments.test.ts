import { expect, test } from "bun:test";
import { join } from "node:path";
import { version } from "../package.json" with { type: "json" };
import { both, CC, needs, output, pause, rest, root } from "./host.ts";

const fromSource = [process.execPath, join(root, "init.ts")];
const cc = needs(CC);

const printVersion: Record<string, string[]> = {
  "-v": ["-v"],
  "-V": ["-V"],
  "-v after other arguments": ["--help", "x", "-v"],
  "-V before other arguments": ["-V", "--help"],
  "-v after 10,000 arguments": [...Array(10_000).fill("argument"), "-v"],
};

for (const [name, args] of Object.entries(printVersion)) {
  test(`${name} prints the version`, () => {
    for (const command of [[pause], fromSource])
      expect(output([...command, ...args])).toEqual({
        stdout: `init.ts ${version}\n`,
        stderr: "",
        exitCode: 0,
        signalCode: null,
      });
  });
}

/** Runs a program that pauses, not as PID 1, until it rests and is terminated. */
async function untilTerminated(command: readonly string[], signal: NodeJS.Signals = "SIGTERM") {
  const process = Bun.spawn([...command], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  await rest(process.pid);
  process.kill(signal);
  return {
    stdout: await new Response(process.stdout).text(),
    stderr: await new Response(process.stderr).text(),
    exitCode: await process.exited,
  };
}

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
  "bytes that are no UTF-8": ["\xff\xfe"],
  "10,000": Array(10_000).fill("argument"),
};

for (const [name, args] of Object.entries(ignored)) {
  test(`arguments are ignored: ${name}`, async () => {
    const warned = {
      stdout: "",
      stderr: "Warning: pause should be the first process\nShutting down, got signal: Terminated\n",
      exitCode: 0,
    };
    expect(await untilTerminated([pause, ...args])).toEqual(warned);
  });
  test.skipIf(cc.skip)(cc.name(`arguments are ignored by the reference: ${name}`), async () => {
    const [ours, its] = await Promise.all(both.map((executable) => untilTerminated([executable, ...args])));
    expect(ours).toEqual(its);
  });
}

test("bun init.ts behaves as the executable", async () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const)
    expect(await untilTerminated([...fromSource, "--help"], signal)).toEqual(
      await untilTerminated([pause], signal),
    );
});

test("another system is refused in one line", () => {
  for (const [platform, arch] of [
    ["darwin", "arm64"],
    ["linux", "riscv64"],
  ]) {
    const pretend = `for (const [key, value] of Object.entries(${JSON.stringify({ platform, arch })}))
      Object.defineProperty(process, key, { value });
      await import(${JSON.stringify(join(root, "init.ts"))})`;
    expect(output([process.execPath, "-e", pretend])).toEqual({
      stdout: "",
      stderr: `Error: pause needs Linux with glibc on x64 or arm64, not ${platform} ${arch}\n`,
      exitCode: 1,
      signalCode: null,
    });
  }
});
