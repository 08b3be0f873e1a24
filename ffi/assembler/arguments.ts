/**
 * The search for an argument of the program, on every architecture: only where the stack is the kernel's own.
 */
import { type Code, label, local, refuse } from "./code.ts";
import { type Encoder, isSevenBits } from "./encoder.ts";

/**
 * How one architecture goes through the arguments: at its start a program finds argc where the stack pointer is, and
 * argv above it (the kernel's create_elf_tables). The result of the last call stays where it is.
 */
export interface Arguments {
  /** Where the number of arguments is that are left, and where a character. */
  readonly countRegister: number;
  readonly characterRegister: number;
  /** Loads argc. */
  count(code: Code): void;
  /** Loads the address of the last argument that is left, and leaves it out of their number. */
  take(code: Code): void;
  /** Loads a character of that argument, by its index. */
  load(code: Code, index: number): void;
  /** Makes a capital letter a small one: sets CASE. */
  lower(code: Code): void;
}

/** An encoder that knows this, too. It compares as strcasecmp(3) does in the C locale. */
export const withArguments = (encoder: Encoder, walk: Arguments): Encoder => ({
  ...encoder,
  jumpIfArgument(code, text, target) {
    check(code, text);
    const none = local(code);
    const next = local(code);
    walk.count(code);
    label(code, next);
    encoder.jumpIf(code, walk.countRegister, "less", 2, none); // the first is the program's name, if there is one
    walk.take(code);
    for (let index = 0; index < text.length; index++) {
      const character = text.charCodeAt(index);
      const small = character | CASE;
      // With that bit no byte becomes a small letter but itself and its capital.
      const isLetter = small >= 0x61 && small <= 0x7a;
      walk.load(code, index);
      if (isLetter) walk.lower(code);
      encoder.jumpIf(code, walk.characterRegister, "unequal", isLetter ? small : character, next);
    }
    walk.load(code, text.length);
    encoder.jumpIf(code, walk.characterRegister, "equal", 0, target); // the end of the string
    encoder.jump(code, next);
    label(code, none);
  },
});

/** The bit in which small letters differ from capital ones. */
export const CASE = 0x20;

/** Of each character there is a byte, and none of them ends the string. */
function check(code: Code, text: string): void {
  for (let index = 0; index < text.length; index++) {
    const character = text.charCodeAt(index);
    if (character === 0 || !isSevenBits(character))
      refuse(code, `${JSON.stringify(text)} is not a text of ASCII characters`);
  }
  // The offset of its end, too, has to fit x86-64's signed byte.
  if (!isSevenBits(text.length)) refuse(code, "an argument is compared with at most 127 bytes");
}
