/**
 * Where the tests run container runtimes: apart from the machine's own containers, images and mounts.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { must } from "./process.ts";
import { dist } from "./programs.ts";

/** A mount namespace in which commands run, with a folder for their files. Only root can make one. */
export abstract class Place implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "pause-place-"));
  readonly #holder: Bun.Subprocess<"ignore", "pipe", "inherit">;
  /** What finds `env`, `sh` and `mount` there. */
  protected readonly tools: readonly string[] = [];

  /** @param script makes it, says so, and stays: $0 is the folder, $1 dist/, and what follows are these arguments */
  protected constructor(script: string, ...args: readonly string[]) {
    this.#holder = Bun.spawn(["unshare", "--mount", "sh", "-c", script, this.folder, dist, ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
  }

  /** Waits until it is there. */
  async ready(): Promise<this> {
    await this.#holder.stdout.getReader().read();
    return this;
  }

  /** What a file of this machine, in the folder or in dist/, is called there. */
  path(file: string): string {
    return file;
  }

  /** The command line that runs a command there. */
  inside(...command: readonly string[]): string[] {
    return ["nsenter", `--mount=/proc/${this.#holder.pid}/ns/mnt`, "--", ...command];
  }

  /** The command line that runs a command there with these variables. */
  with(variables: Readonly<Record<string, string>>, ...command: readonly string[]): string[] {
    const assignments = Object.entries(variables).map(([name, value]) => `${name}=${value}`);
    return this.inside(...this.tools, "env", ...assignments, ...command);
  }

  /** The command line that runs a script there, in the folder unless another is given. */
  script(text: string, variables: Readonly<Record<string, string>> = {}, cwd = this.folder): string[] {
    return this.with(variables, ...this.tools, "sh", "-euc", `cd ${this.path(cwd)}\n${text}`);
  }

  /** Runs a command there; it has to succeed. */
  must(...command: readonly string[]): string {
    return must(...this.inside(...command));
  }

  /** Mounts a folder of this machine over one there. */
  bind(from: string, to: string): void {
    this.must(...this.tools, "mount", "--bind", this.path(from), to);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#holder.kill("SIGKILL");
    await this.#holder.exited;
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** This machine, in which no empty cgroup2 hides the version that the runtimes can use. */
export class ThisMachine extends Place {
  constructor() {
    super("umount /sys/fs/cgroup/unified 2>/dev/null; echo ready; exec sleep infinity");
  }
}
