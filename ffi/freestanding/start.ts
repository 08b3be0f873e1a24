/**
 * init.ts where it is compiled: start only says which function main is.
 */
import type { Main } from "../libc.ts";

/** What a world has besides the language: where its main is left (world.ts). */
declare const program: { main?: Main };

export function start(main: Main): void {
  program.main = main;
}
