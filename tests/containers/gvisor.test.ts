/**
 * The programs in gVisor, whose /proc says less than Linux's and whose processes have mappings of its own.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { missingDebian, unpacked } from "../helpers/debian.ts";
import { describeEach, ended, MESSAGE, needing } from "../helpers/expect.ts";
import { BUSYBOX, install, librariesOf } from "../helpers/images.ts";
import { endOf, field, must, output, until } from "../helpers/process.ts";
import type { Program } from "../helpers/programs.ts";
import { orphans, specify } from "../helpers/runtimes.ts";
import { ROOT, unobtainable } from "../helpers/tools.ts";

let runsc = "";
function fetchRunsc(): void {
  runsc = join(unpacked("trixie", "runsc"), "usr/bin/runsc");
}

/** More than libc and a stack have in memory, in kB; the runtime alone has over 100,000. */
const MOST = 4096;

needing(
  ROOT,
  { "/bin/busybox": "busybox-static" },
  () => missingDebian({}) || unobtainable(fetchRunsc),
).describe("gVisor", () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "pause-gvisor-"));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** A root file system of a program, the libraries that it is linked with, and busybox. */
  function rootfs({ name, executable }: Program): string {
    const root = join(folder, `rootfs-${name}`);
    if (!existsSync(root)) install(root, { pause: executable, ...BUSYBOX, ...librariesOf(executable) });
    return root;
  }

  /** A sandbox of gVisor's in which the program is PID 1, as the image's user and in a read-only file system. */
  class Sandbox implements AsyncDisposable {
    readonly #runsc: readonly string[];
    readonly #bundle = mkdtempSync(join(folder, "bundle-"));
    readonly #id = basename(this.#bundle);
    readonly #run: Bun.Subprocess<"ignore", "pipe", "pipe">;

    constructor(platform: string, program: Program) {
      const options = [`--platform=${platform}`, "--network=none", "--ignore-cgroups"];
      this.#runsc = [runsc, `--root=${join(folder, "state")}`, ...options];
      specify(this.#bundle, runsc, (config) => {
        Object.assign(config.process, { user: { uid: 65535, gid: 65535 }, env: ["PATH=/bin"] });
        config.root = { path: rootfs(program), readonly: true };
      });
      const run = [...this.#runsc, "run", "--bundle", this.#bundle, this.#id];
      this.#run = Bun.spawn(run, { stdio: ["ignore", "pipe", "pipe"] });
    }

    get pid(): number {
      return this.#run.pid;
    }

    get stderr(): ReadableStream<Uint8Array> {
      return this.#run.stderr;
    }

    /** Runs a command inside, and gives its standard output, "" if it failed. */
    exec(...command: readonly string[]): string {
      const { stdout, exitCode } = output([...this.#runsc, "exec", this.#id, ...command]);
      return exitCode === 0 ? stdout : "";
    }

    /** The memory map of PID 1, from within: from without there is only gVisor's. */
    maps(): string[] {
      return this.exec("busybox", "cat", "/proc/1/maps").split("\n").slice(0, -1);
    }

    end() {
      must(...this.#runsc, "kill", this.#id, "TERM");
      return endOf(this.#run);
    }

    async [Symbol.asyncDispose](): Promise<void> {
      output([...this.#runsc, "delete", "--force", this.#id]);
      await this.#run.exited;
    }
  }

  describeEach((program) => {
    for (const platform of ["systrap", "ptrace"])
      test(`${platform}: nothing of the runtime is left, orphans are reaped, SIGTERM ends it with 0`, async () => {
        await using sandbox = new Sandbox(platform, program);
        let status = "";
        let maps: string[] = [];
        const isAtRest = () => {
          // gVisor's status does not say which signals are caught.
          status = sandbox.exec("busybox", "cat", "/proc/1/status");
          if (!field(status, "State").startsWith("S")) return false;
          maps = sandbox.maps();
          return maps.length > 0 && program.keeps(maps.filter((line) => line.endsWith(" /pause")));
        };
        try {
          await until(`${program.name} at rest`, isAtRest, sandbox);
        } catch (error) {
          throw new Error(`inside:\n${status}\n${maps.join("\n")}`, { cause: error });
        }
        expect(field(status, "Threads")).toBe("1");
        expect(Number.parseInt(field(status, "VmRSS"), 10)).toBeLessThan(MOST);

        sandbox.exec("sh", "-c", orphans(50));
        const ps = () => sandbox.exec("busybox", "ps", "-o", "pid,stat,args").trimEnd().split("\n").slice(1);
        const isAlone = ([first = "", ...others]: string[]) =>
          /^ *1 S +\/pause$/.test(first) && others.length === 1;
        await until("no zombie and no orphan", () => isAlone(ps()), sandbox);
        expect(await sandbox.end()).toEqual(ended({ stderr: MESSAGE }));
      });
  });
});
