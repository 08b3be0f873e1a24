/**
 * Where the tests run container runtimes: apart from the machine's own containers, images and mounts.
 */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Image } from "./images.ts";
import { must } from "./process.ts";

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

  /** Builds an image, and an archive of it. */
  build(name: string, archive: string, containerfile: string, files: Record<string, string>): void {
    const context = mkdtempSync(join(this.folder, "context-"));
    for (const [to, from] of Object.entries(files)) {
      mkdirSync(dirname(join(context, to)), { recursive: true });
      copyFileSync(from, join(context, to));
      must("chmod", "755", join(context, to));
    }
    writeFileSync(join(context, "Containerfile"), containerfile);
    const store = this.store("build");
    this.must("buildah", ...store, "build", "--quiet", "--tag", name, context);
    this.must("buildah", ...store, "push", "--quiet", name, `oci-archive:${archive}:${name}`);
  }

  /** The root file system of an image, as this folder. */
  rootOf({ archive, name }: Image, folder: string): void {
    const store = this.store("roots");
    const container = this.must("buildah", ...store, "from", `oci-archive:${archive}:${name}`).trim();
    must("cp", "--archive", this.must("buildah", ...store, "mount", container).trim(), folder);
  }

  [Symbol.dispose](): void {
    this.#holder.kill("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }
}
