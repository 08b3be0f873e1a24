/**
 * What a routine is, and how it becomes machine code.
 *
 * A routine is a list of steps: calls with constant arguments, and jumps that depend on the last call's result or on
 * the arguments of the program. That is all that signal handlers and main need, so it is all there is.
 */
import { align, type Code, data, type Line, label, refuse } from "./code.ts";
import {
  type Condition,
  call,
  type Encoder,
  type FunctionEncoder,
  jumpIf,
  systemCall,
  type Value,
} from "./encoder.ts";

export { UnsupportedRoutine } from "./code.ts";
export type { Address, Condition, Encoder, FunctionEncoder, Value, Words } from "./encoder.ts";

export type Step =
  /** Calls the C function at this address, with up to six values. */
  | { readonly call: number; readonly values: readonly Value[]; readonly reason?: string }
  /** Makes the system call of this number, with up to six values. An error is a negative result. */
  | { readonly systemCall: number; readonly values: readonly Value[]; readonly reason?: string }
  | { readonly label: string }
  | { readonly jump: string; readonly when?: Condition; readonly reason?: string }
  /**
   * Jumps if an argument of the program, besides its name, is this text, whatever the case of ASCII's letters. Only
   * where the stack is the kernel's own.
   */
  | { readonly jump: string; readonly whenArgument: string; readonly reason?: string }
  /** Begins a C function, and keeps the errno that this function, `int *(void)`, points to. */
  | { readonly begin: number; readonly reason?: string }
  /** Puts that errno back and returns. */
  | { readonly end: true; readonly reason?: string }
  /** Returns from a function that began with nothing. */
  | { readonly return: true; readonly reason?: string };

/** A part of what is assembled. Its label can be referred to by every other part. */
export type Part =
  | { readonly label: string; readonly steps: readonly Step[]; readonly alignment?: number }
  | { readonly label: string; readonly data: Uint8Array; readonly alignment?: number };

function encode(encoder: Encoder | FunctionEncoder, code: Code, step: Step): void {
  if ("label" in step) {
    label(code, step.label);
    return;
  }
  code.reason = step.reason ?? code.reason;
  if ("systemCall" in step) systemCall(code, encoder, step.systemCall, step.values);
  else if ("whenArgument" in step) {
    if (encoder.jumpIfArgument === undefined) refuse(code, "this encoder does not know where arguments are");
    encoder.jumpIfArgument(code, step.whenArgument, step.jump);
  } else if ("jump" in step) {
    if (step.when === undefined) encoder.jump(code, step.jump);
    else jumpIf(code, encoder, step.when, step.jump);
  } else if ("return" in step) encoder.return(code);
  else if (!("call" in encoder)) refuse(code, "this architecture calls no functions");
  else if ("call" in step) call(code, encoder, step.call, step.values);
  else if ("begin" in step) encoder.begin(code, step.begin);
  else encoder.end(code);
}

/** What `assemble` has written. */
export interface Assembled {
  /** The address of every label. */
  readonly labels: Readonly<Record<string, number>>;
  /** The bytes that were written. */
  readonly size: number;
  /** Every instruction and datum in order, if a listing was asked for; else nothing. */
  readonly listing: readonly Line[];
}

/**
 * Writes parts in their order.
 *
 * Code may refer to what comes later. So it is written again, with the labels as they were found, until none has
 * moved; code that refers only to what comes before it is written once. That ends: where things lie depends only on
 * which jumps are long, of which there are more and more. A pass that adds none finds all as the one before left it.
 *
 * @param memory where to write
 * @param base the address that the first byte will have
 * @throws {UnsupportedRoutine} if a step cannot be encoded, refers to a label that is nowhere, or says of one that is
 *   somewhere that it is here too.
 * @throws {RangeError} if the parts fill more than `memory`.
 *
 * @example
 * ```ts
 * const loop = { label: "loop", steps: [{ label: "again" }, { systemCall: 34, values: [] }, { jump: "again" }] };
 * assemble(x86_64, [loop], new Uint8Array(64), 0).size; // 9
 * ```
 */
export function assemble(
  encoder: Encoder | FunctionEncoder,
  parts: readonly Part[],
  memory: Uint8Array,
  base: number,
  withListing = false,
): Assembled {
  const labels: Record<string, number> = Object.create(null); // a label may be called constructor
  const longJumps: boolean[] = [];
  for (let isFirstPass = true; ; isFirstPass = false) {
    const listing: Line[] = [];
    const code: Code = {
      memory,
      base,
      offset: 0,
      labels,
      isFirstPass,
      isSettled: true,
      jumps: 0,
      longJumps,
      locals: 0,
      listing: withListing ? listing : undefined,
      reason: "",
    };
    for (const part of parts) {
      align(code, part.alignment ?? encoder.alignment);
      code.reason = "";
      label(code, part.label);
      if ("data" in part) data(code, part.data);
      else for (const step of part.steps) encode(encoder, code, step);
    }
    if (code.isSettled) return { labels, size: code.offset, listing };
  }
}
