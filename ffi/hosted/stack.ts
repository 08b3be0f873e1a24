/**
 * The start of the stack, where the kernel has put the arguments (System V psABI AMD64 3.4.1, and the same on arm64).
 *
 * | offset | size | |
 * | --- | --- | --- |
 * | 0 | 8 | argc |
 * | 8 | 8 each | argv[0] to argv[argc - 1], then a null pointer and the environment |
 */
import { type Pointer, read } from "bun:ffi";
import type { Argument } from "../libc.ts";
import { addressOf, type LibcFunctions } from "./libc.ts";

/** The address of argc, which the loader knows. /proc/self/stat has it too, but not in gVisor. */
export const startOfStack = (libc: LibcFunctions): number =>
  read.ptr(addressOf(libc.__libc_stack_end) as Pointer, 0);

/**
 * Whether one of the program's arguments, besides its name, is wanted.
 *
 * They are looked at where they lie. Making strings of JavaScript out of 10,000 of them, as process.argv does, fills so
 * much of its heap that it starts a thread.
 */
export function someArgument(stack: number, isWanted: (argument: Argument) => boolean): boolean {
  const argc = read.i32(stack as Pointer, 0);
  for (let index = 1; index < argc; index++)
    if (isWanted(read.ptr(stack as Pointer, 8 + 8 * index) as number as Argument)) return true;
  return false;
}
