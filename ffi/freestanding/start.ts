/**
 * init.ts where it is compiled: start hands main over, which is run then and there, as under Bun.
 */
import type { Main } from "../libc.ts";

/** What a world has besides the language (world.ts). */
declare const program: { start(main: Main): never };

export function start(main: Main): never {
  return program.start(main);
}
