/**
 * Starts programs without Bun.spawn, which takes longer than a small program does: with posix_spawn(3), which copies no
 * memory, and waits for them with wait4(2), so that no timer and no poll is part of what is measured.
 */
import { dlopen, type Pointer, ptr } from "bun:ffi";

const { symbols: libc } = dlopen("libc.so.6", {
  posix_spawn: { args: ["ptr", "ptr", "ptr", "ptr", "ptr", "ptr"], returns: "int" },
  posix_spawn_file_actions_init: { args: ["ptr"], returns: "int" },
  posix_spawn_file_actions_addopen: { args: ["ptr", "int", "ptr", "int", "int"], returns: "int" },
  posix_spawnattr_init: { args: ["ptr"], returns: "int" },
  posix_spawnattr_setflags: { args: ["ptr", "int"], returns: "int" },
  posix_spawnattr_setsigdefault: { args: ["ptr", "ptr"], returns: "int" },
  wait4: { args: ["int", "ptr", "int", "ptr"], returns: "int" },
});

const O_RDWR = 2;
const POSIX_SPAWN_SETSIGDEF = 4;
/** More than glibc and musl need for any of the structs, in bytes. */
const SIZE = 512;

const text = (value: string) => Buffer.from(`${value}\0`);

/** An array of C strings, ended by NULL; the caller keeps `texts` as long as it is used. */
const strings = (texts: readonly Buffer[]) =>
  BigUint64Array.from([...texts.map((each) => BigInt(ptr(each))), 0n]);

const DEV_NULL = text("/dev/null");
const actions = new Uint8Array(SIZE);
libc.posix_spawn_file_actions_init(ptr(actions));
for (const fd of [0, 1, 2]) libc.posix_spawn_file_actions_addopen(ptr(actions), fd, ptr(DEV_NULL), O_RDWR, 0);

// Bun ignores some signals, and an ignored signal is inherited.
const attributes = new Uint8Array(SIZE);
libc.posix_spawnattr_init(ptr(attributes));
libc.posix_spawnattr_setflags(ptr(attributes), POSIX_SPAWN_SETSIGDEF);
libc.posix_spawnattr_setsigdefault(ptr(attributes), ptr(new Uint8Array(SIZE).fill(0xff)));

const environment = [text(`PATH=${process.env.PATH}`)];
const envp = strings(environment);
const pid = new Int32Array(1);

/** A command, prepared: nothing is left to do but to start it. Its first word is a path. */
export class Command {
  readonly #texts: readonly Buffer[];
  readonly #argv: BigUint64Array;
  readonly #path: Pointer;

  constructor(command: readonly string[]) {
    this.#texts = command.map(text);
    this.#argv = strings(this.#texts);
    this.#path = ptr(this.#texts[0] ?? DEV_NULL);
  }

  /** Returns its process ID as soon as it is executed. Its standard descriptors are /dev/null. */
  start(): number {
    const failed = libc.posix_spawn(
      ptr(pid),
      this.#path,
      ptr(actions),
      ptr(attributes),
      ptr(this.#argv),
      ptr(envp),
    );
    if (failed !== 0) throw new Error(`${this.#texts[0]?.toString("latin1").slice(0, -1)}: errno ${failed}`);
    return pid[0] ?? 0;
  }
}

/** Waits until a child has ended. */
export function wait(child: number): void {
  libc.wait4(child, null, 0, null);
}
