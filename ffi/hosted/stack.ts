/**
 * The start of the stack, where the kernel has put the arguments (System V psABI AMD64 3.4.1, and the same on arm64).
 *
 * | offset | size | |
 * | --- | --- | --- |
 * | 0 | 8 | argc |
 * | 8 | 8 each | argv[0] to argv[argc - 1], then a null pointer and the environment |
 *
 * The strings themselves lie above, one behind the other (the kernel's copy_strings in fs/exec.c).
 */
import { type Pointer, read } from "bun:ffi";
import { ascii } from "../libc.ts";
import { addressOf, type LibcFunctions } from "./libc.ts";

/** The address of argc, which the loader knows. /proc/self/stat has it too, but not in gVisor. */
export const startOfStack = (libc: LibcFunctions): number =>
  read.ptr(addressOf(libc.__libc_stack_end) as Pointer, 0);

/**
 * Whether this is among the program's arguments, besides its name.
 *
 * The strings are searched as they lie there. Making strings of JavaScript out of 10,000 of them, as process.argv
 * does, fills so much of its heap that it starts a thread.
 */
export function hasArgument(libc: LibcFunctions, stack: number, argument: string): boolean {
  const argc = read.i32(stack as Pointer, 0);
  if (argc < 2) return false;
  const first = read.ptr(stack as Pointer, 8);
  const last = read.ptr(stack as Pointer, 8 * argc);
  // No zero byte comes before the first string, the program's name; nor is the last one's in what is searched.
  const wanted = ascii(`\0${argument}\0`);
  if (libc.memmem(first as Pointer, last - first, wanted, wanted.length) !== null) return true;
  let index = 0;
  while (index < argument.length && read.u8(last as Pointer, index) === argument.charCodeAt(index)) index++;
  return index === argument.length && read.u8(last as Pointer, index) === 0;
}
