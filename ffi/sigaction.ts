/**
 * struct sigaction, and sigaction(2) with a handler made of routines.
 *
 * glibc's struct, the same on x86-64 and arm64 (bits/sigaction.h), in bytes; it is not the kernel's own:
 *
 * | offset | size | field |
 * | --- | --- | --- |
 * | 0 | 8 | sa_handler, a union with sa_sigaction |
 * | 8 | 128 | sa_mask, a sigset_t (bits/types/__sigset_t.h) |
 * | 136 | 4 | sa_flags |
 * | 144 | 8 | sa_restorer, which glibc sets itself |
 * | 152 | | size |
 */
import * as libc from "./libc.ts";
import { type Handler, int32, int64, load, UnsupportedRoutine } from "./routine.ts";

export const offsetof = { sa_handler: 0, sa_mask: 8, sa_flags: 136, sa_restorer: 144 } as const;
export const sizeof = { sigaction: 152, sigset_t: 128 } as const;

/** A struct sigaction as bytes, with an empty sa_mask. */
export function structSigaction(sa_handler: number, sa_flags = 0): Uint8Array {
  const bytes = new Uint8Array(sizeof.sigaction);
  const view = new DataView(bytes.buffer);
  int64({ view, offset: offsetof.sa_handler }, sa_handler);
  int32({ view, offset: offsetof.sa_flags }, sa_flags);
  return bytes;
}

/**
 * sigaction(2): installs the handler's routine for this signal.
 *
 * @returns 0, or -1 if the kernel refuses.
 * @throws {UnsupportedRoutine} if the handler was not declared for the signal.
 *
 * @example
 * ```ts
 * if (sigaction(SIGCHLD, { sa_handler: sigreap, sa_flags: SA_NOCLDSTOP }, NULL) < 0) return 3;
 * ```
 */
export function sigaction(
  signo: number,
  act: { sa_handler: Handler; sa_flags?: number },
  oldact: null,
): number {
  const forSignal = act.sa_handler.routines[act.sa_handler.signals.indexOf(signo)];
  if (forSignal === undefined)
    throw new UnsupportedRoutine(`the handler was not declared for signal ${signo}`);
  return libc.sigaction(signo, structSigaction(load(forSignal), act.sa_flags), oldact);
}
