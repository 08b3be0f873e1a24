/**
 * Where the tests run container runtimes: apart from the machine's own containers, images and mounts.
 */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { must } from "../host.ts";

/** A mount namespace in which no empty cgroup2 hides the version that the runtimes can use. */
export class Workshop {
  readonly folder = mkdtempSync(join(tmpdir(), "pause-runtimes-"));
  readonly #holder = Bun.spawn(
    [
      "unshare",
      "--mount",
      "sh",
      "-c",
      "umount /sys/fs/cgroup/unified 2>/dev/null; echo ready; exec sleep infinity",
    ],
    { stdio: ["ignore", "pipe", "ignore"] },
  );

  async ready(): Promise<void> {
    await this.#holder.stdout.getReader().read();
  }

  /** The command line that runs a command there. */
  inside(...command: readonly string[]): string[] {
    return ["nsenter", `--mount=/proc/${this.#holder.pid}/ns/mnt`, "--", ...command];
  }

  /** Runs a command there; it has to succeed. */
  must(...command: readonly string[]): string {
    return must(...this.inside(...command));
  }

  /** The options of podman and buildah for a store of images and containers. */
  store(name: string): string[] {
    const folder = join(this.folder, name);
    return ["--root", `${folder}-root`, "--runroot", `${folder}-run`, "--storage-driver", "vfs"];
  }

  /** A root file system with busybox only, for the containers beside the pause container. */
  application(): string {
    const folder = join(this.folder, "application");
    mkdirSync(join(folder, "bin"), { recursive: true });
    copyFileSync("/bin/busybox", join(folder, "bin/busybox"));
    must("chmod", "755", join(folder, "bin/busybox"));
    symlinkSync("busybox", join(folder, "bin/sh"));
    writeFileSync(join(folder, "Containerfile"), "FROM scratch\nCOPY bin /bin\nENV PATH=/bin\n");
    return folder;
  }

  [Symbol.dispose](): void {
    this.#holder.kill("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }
}
