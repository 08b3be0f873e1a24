/**
 * The listing: every byte that is loaded, what it means, and the line of init.ts that it is there for.
 */
import type { Line } from "../assembler/code.ts";

/** Columns for the bytes of an instruction. */
const WIDTH = 32;

/**
 * Writes a listing.
 *
 * @param title what it is a listing of
 * @param headers the size of what is loaded before the first instruction, in bytes
 * @param parts the names of routines and texts
 * @param labels the addresses of these, and of places within routines
 */
export function listing(
  title: string,
  headers: number,
  memory: Uint8Array,
  lines: readonly Line[],
  parts: readonly string[],
  labels: Readonly<Record<string, number>>,
): string {
  const targets = new Set(lines.map(({ target }) => target));
  const named = Object.entries(labels).filter(
    ([name]) => !name.startsWith(".") && (targets.has(name) || parts.includes(name)),
  );
  const text = [title, "", `0 to ${(headers - 1).toString(16)}: the ELF header and two program headers`];
  let reason = "";
  for (const { address, size, text: instruction, isData, target, reason: because } of lines) {
    const names = named.filter(([, at]) => at === address).map(([name]) => name);
    if (names.length > 0) text.push("", ...names.map((name) => `${name}:`));
    if (because !== reason || names.length > 0) {
      if (because !== "") text.push(`  ; ${because}`);
      reason = because;
    }
    const at = address.toString(16).padStart(4);
    if (isData) text.push(`  ${at}: ${size} bytes  ${instruction}`);
    else {
      const bytes = [...memory.subarray(address - headers, address - headers + size)];
      const hex = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
      const shown = target === undefined || target.startsWith(".") ? "" : ` <${target}>`;
      text.push(`  ${at}: ${hex.padEnd(WIDTH)}${instruction}${shown}`);
    }
  }
  return `${text.join("\n")}\n`;
}
