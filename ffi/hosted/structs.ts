/**
 * glibc's structs, the same on x86-64 and arm64. glibc's struct sigaction is not the kernel's own.
 *
 * struct sigaction (bits/sigaction.h), in bytes:
 *
 * | offset | size | field |
 * | --- | --- | --- |
 * | 0 | 8 | sa_handler, a union with sa_sigaction |
 * | 8 | 128 | sa_mask, a sigset_t (bits/types/__sigset_t.h) |
 * | 136 | 4 | sa_flags, and 4 of padding |
 * | 144 | 8 | sa_restorer, which glibc sets itself |
 *
 * ucontext_t (sys/ucontext.h): uc_stack, a stack_t, begins at 16; ss_sp has offset 0 in it, ss_size 16.
 */

/** The offsets of the fields, in bytes. */
export const offsetof = {
  sigaction: { sa_handler: 0, sa_mask: 8, sa_flags: 136, sa_restorer: 144 },
  ucontext: { ss_sp: 16, ss_size: 32 },
} as const;

/** In bytes. Of ucontext_t it is more than it has on x86-64 (968) and on arm64 (4560). */
export const sizeof = { sigaction: 152, sigset_t: 128, ucontext: 8192 } as const;

/** Writes a safe integer as 64 bits in two's complement, least significant byte first. */
export function setInt64(bytes: Uint8Array, offset: number, value: number): void {
  let rest = value;
  for (let index = offset; index < offset + 8; index++) {
    const low = rest & 0xff;
    bytes[index] = low;
    rest = (rest - low) / 256;
  }
}

/** An unsigned integer of this many bytes, least significant first; exact below 2 ** 53. */
export function uint(bytes: Uint8Array, offset: number, size: number): number {
  let value = 0;
  for (let index = offset + size - 1; index >= offset; index--) value = value * 256 + (bytes[index] ?? 0);
  return value;
}

/** A struct sigaction as bytes, with an empty sa_mask. */
export function structSigaction(sa_handler: number, sa_flags = 0): Uint8Array {
  const bytes = new Uint8Array(sizeof.sigaction);
  setInt64(bytes, offsetof.sigaction.sa_handler, sa_handler);
  // An int in C: its sign says nothing.
  setInt64(bytes, offsetof.sigaction.sa_flags, sa_flags >>> 0);
  return bytes;
}
