/**
 * What the kernel says of this process in /proc.
 */
import { cString, type LibcFunctions, O_CLOEXEC, O_RDONLY } from "./libc.ts";

/** The kernel gives no more than a page of /proc/PID/maps at a time (fs/seq_file.c), in bytes. */
const CHUNK = 4096;

/** Addresses from `start` up to, but not including, `end`. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** A line of /proc/PID/maps: addresses, "rwxp" or some of it, and a path, a name in brackets, or "". */
export interface Mapping extends Range {
  readonly permissions: string;
  readonly name: string;
}

/**
 * A file of /proc, as text; "" if it cannot be read.
 *
 * Its buffer is small because JavaScriptCore counts it once for itself and once more for each view of it. Where it sees
 * a memory limit it collects when a quarter of that is in use, and a collection starts threads, with which the runtime
 * stays.
 */
export function readProc(libc: LibcFunctions, path: string): string {
  const fd = libc.open(cString(path), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  const chunk = new Uint8Array(CHUNK);
  const decoder = new TextDecoder();
  let text = "";
  let length = Number(libc.read(fd, chunk, CHUNK));
  for (; length > 0; length = Number(libc.read(fd, chunk, CHUNK)))
    text += decoder.decode(chunk.subarray(0, length), { stream: true });
  libc.close(fd);
  return length < 0 ? "" : text;
}

/** Where a link of /proc leads; undefined if there is none. */
export function readLink(libc: LibcFunctions, path: string): string | undefined {
  const target = new Uint8Array(256);
  const length = Number(libc.readlink(cString(path), target, target.length));
  return length < 0 ? undefined : new TextDecoder().decode(target.subarray(0, length));
}

/**
 * The lines of /proc/PID/maps, in order of their addresses (proc_pid_maps(5)): "start-end perms offset dev inode",
 * and behind that, from column 73 on, the name if there is one.
 *
 * @returns undefined if there is none, or one that is not like that
 */
export function parseMaps(text: string): Mapping[] | undefined {
  const mappings: Mapping[] = [];
  let previous = 0;
  for (let from = 0; from < text.length; ) {
    const newline = text.indexOf("\n", from);
    const dash = text.indexOf("-", from);
    const space = text.indexOf(" ", dash);
    const start = hexadecimal(text, from, dash);
    const end = hexadecimal(text, dash + 1, space);
    if (!(start >= previous && end > start && newline > space)) return undefined;
    const permissions = text.slice(space + 1, space + 5);
    mappings.push({ start, end, permissions, name: text.slice(from + 73, newline) });
    previous = end;
    from = newline + 1;
  }
  return mappings.length > 0 ? mappings : undefined;
}

/** The number between two places of a text, without a string for it; NaN if it is none. */
function hexadecimal(text: string, from: number, to: number): number {
  let value = from < to ? 0 : Number.NaN;
  for (let index = from; index < to; index++) {
    const character = text.charCodeAt(index);
    const isDigit = character >= 0x30 && character <= 0x39;
    const isLetter = character >= 0x61 && character <= 0x66;
    value = value * 16 + (isDigit ? character - 0x30 : isLetter ? character - 0x57 : Number.NaN);
  }
  return value;
}
