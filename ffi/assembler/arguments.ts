/**
 * The search for an argument of the program, on every architecture: only where the stack is the kernel's own.
 */
import { type Code, label, local, refuse } from "./code.ts";
import { type Encoder, isSevenBits, type Relation } from "./encoder.ts";

/**
 * How one architecture goes through the arguments: at its start a program finds argc where the stack pointer is, and
 * argv above it (the kernel's create_elf_tables). It leaves the result of the last call alone.
 */
export interface Arguments {
  /** Loads argc. */
  count(code: Code): void;
  /** Loads the address of the argument before, or jumps if that is the program's name, or there is none. */
  previous(code: Code, none: string): void;
  /** Jumps if the character of this index is, or is not, this one; if that is a letter, small or capital. */
  jumpIfCharacter(
    code: Code,
    index: number,
    relation: Relation & ("equal" | "unequal"),
    character: number,
    target: string,
  ): void;
}

/** An encoder that knows this, too. It compares as strcasecmp(3) does in the C locale. */
export const withArguments = (
  encoder: Encoder,
  { count, previous, jumpIfCharacter }: Arguments,
): Encoder => ({
  ...encoder,
  jumpIfArgument(code, text, target) {
    check(code, text);
    const none = local(code);
    const next = local(code);
    count(code);
    label(code, next);
    previous(code, none);
    for (let index = 0; index < text.length; index++) {
      const character = text.charCodeAt(index);
      const small = character | CASE;
      jumpIfCharacter(code, index, "unequal", isLetter(small) ? small : character, next);
    }
    jumpIfCharacter(code, text.length, "equal", 0, target); // the end of the string
    encoder.jump(code, next);
    label(code, none);
  },
});

/** The bit in which small letters differ from capital ones. */
export const CASE = 0x20;

/** Whether this is a small letter of ASCII. With that bit no byte becomes one but itself and its capital. */
export const isLetter = (character: number): boolean => character >= 0x61 && character <= 0x7a;

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
