import { _exit, cString, STDERR_FILENO, write } from "./libc.ts";
import { resetSignals } from "./runtime.ts";

/**
 * Runs `main` with the arguments of the program, without its name, and ends the process with what it returns.
 *
 * What `main` throws is one line on standard error and exit code 1. The end is `_exit`: the C program has
 * nothing left to do at exit(3), and Bun has things to do that nobody here needs.
 */
export function start(main: (argv: readonly string[]) => number): never {
  let status = 1;
  resetSignals();
  try {
    status = main(process.argv.slice(2));
  } catch (error) {
    const line = cString(`Error: ${error instanceof Error ? error.message : error}\n`);
    write(STDERR_FILENO, line, line.length - 1);
  }
  _exit(status);
  throw new Error("_exit returned");
}
