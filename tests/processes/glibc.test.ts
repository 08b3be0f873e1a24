/**
 * The glibc of later Debians. Bun takes whichever there is, and what the kernel and libc keep beside a thread lies
 * elsewhere in each: since 2.41 the kernel writes to an area (rseq(2)) below struct pthread.
 */
import { expect } from "bun:test";
import { copyFileSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { missingDebian, type Suite, unpacked } from "../helpers/debian.ts";
import { needing } from "../helpers/expect.ts";
import { NAMESPACES, Pod } from "../helpers/pod.ts";
import { hosted } from "../helpers/programs.ts";
import { unobtainable } from "../helpers/tools.ts";

/** The loader's setting that moves the thread's block through its page, 64 bytes at a time. */
const TUNABLE = "glibc.rtld.optional_static_tls";
const SIZES = Array.from({ length: 121 }, (_, index) => 512 + 64 * index);

/** In what a start with this much room differs from a good one: "" if in nothing. */
async function fault(root: string, size: number): Promise<string> {
  const script = `mount --bind /proc "$0/proc" && exec env GLIBC_TUNABLES=${TUNABLE}=${size} chroot "$0" /pause`;
  await using pod = await Pod.start(["sh", "-c", script, root]);
  const { exitCode, signalCode, stderr } = await pod.outcome(hosted);
  return exitCode === 0 ? "" : `${size}: ${signalCode ?? exitCode} ${stderr}`;
}

for (const suite of ["trixie", "sid"] satisfies Suite[])
  needing(
    NAMESPACES,
    () => missingDebian({}) || unobtainable(() => unpacked(suite, "libc6")),
  ).test(`a later glibc, ${suite}'s: it rests, reaps and ends wherever its thread's block lies`, async () => {
    const root = unpacked(suite, "libc6");
    mkdirSync(join(root, "proc"), { recursive: true });
    const executable = join(root, "pause");
    rmSync(executable, { force: true });
    copyFileSync(hosted.executable, executable);
    const sizes = SIZES[Symbol.iterator]();
    const faults: string[] = [];
    const some = async () => {
      for (const size of sizes) faults.push(await fault(root, size));
    };
    await Promise.all([some(), some(), some(), some()]);
    expect(faults.filter(Boolean)).toEqual([]);
  });
