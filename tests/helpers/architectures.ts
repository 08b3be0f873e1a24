/**
 * The architectures that there are encoders for, and the tools that know them too.
 */
import { join } from "node:path";
import type { Encoder, FunctionEncoder } from "../../ffi/assembler/routine.ts";
import { architectures as tables } from "../../ffi/freestanding/architectures.ts";
import { missingDebian, rootFileSystem, withProgramsOf } from "./debian.ts";
import { must } from "./process.ts";
import { architecture as own } from "./programs.ts";
import { lacking, type Needed, ROOT, unobtainable } from "./tools.ts";

/** Commands for one architecture. They can be asked for where nothing of `needed` is missing. */
interface Tools {
  /** objdump with the options for its instructions as the listing has them. */
  objdump(): readonly string[];
  elflint(): readonly string[];
  compiler(): readonly string[];
  emulator(): string;
  /** What it takes to have them: with Debian's packages, or a reason why not. */
  readonly needed: Readonly<Record<"objdump" | "elflint" | "run", Needed>>;
}

export interface Architecture extends Tools {
  readonly name: string;
  readonly encoder: Encoder | FunctionEncoder;
  /** What objdump has to be told of a file that does not say what it is. */
  readonly raw: readonly string[];
  /** The bits of a machine word. */
  readonly bits: 32 | 64;
  readonly bigEndian?: boolean;
  /** What the stack pointer is a multiple of, in bytes. */
  readonly stack: number;
}

/** Those of this machine. */
function debian12(debian: string, tuple: string, cpu: string, ...options: readonly string[]): Tools {
  const [compiler, emulator] = [`${tuple}-gcc`, `qemu-${cpu}-static`];
  const cross = `gcc-${tuple.replace("_", "-")} libc6-dev-${debian}-cross`;
  const packages = debian === own ? "gcc libc6-dev" : cross;
  return {
    objdump: () => ["objdump", ...options],
    elflint: () => ["eu-elflint"],
    compiler: () => [compiler],
    emulator: () => emulator,
    needed: {
      objdump: { objdump: "binutils-multiarch" },
      elflint: { "eu-elflint": "elfutils" },
      run: { [compiler]: packages, [emulator]: "qemu-user-static" },
    },
  };
}

/** Those of Debian 13: no binutils and no compiler of Debian 12 knows loong64, and its qemu runs no C program for it. */
function debian13(): Tools {
  const root = () =>
    rootFileSystem(
      "trixie",
      ["gcc-loongarch64-linux-gnu", "libc6-dev-loong64-cross", "elfutils", "qemu-user"],
      // 440 MB for other architectures.
      ["path-exclude=/usr/bin/qemu-*", "path-include=/usr/bin/qemu-loongarch64"],
    );
  let how: string | undefined;
  const needed = () => {
    how ??= lacking(
      ROOT,
      () => missingDebian({ mmdebstrap: "mmdebstrap", unshare: "util-linux" }),
      () => unobtainable(root),
    );
    return how;
  };
  return {
    objdump: () => withProgramsOf(root(), "loongarch64-linux-gnu-objdump", "-Mno-aliases"),
    elflint: () => withProgramsOf(root(), "eu-elflint"),
    compiler: () => withProgramsOf(root(), "loongarch64-linux-gnu-gcc"),
    emulator: () => join(root(), "usr/bin/qemu-loongarch64"), // it is static
    needed: { objdump: needed, elflint: needed, run: needed },
  };
}

function architecture(
  name: string,
  tools: Tools,
  raw: string,
  rest: { bits?: 32; bigEndian?: true; stack?: number } = {},
): Architecture {
  const { encoder } = tables[name] ?? {};
  if (encoder === undefined) throw new Error(`no encoder for ${name}`);
  return { name, encoder, ...tools, raw: raw.split(" "), bits: 64, stack: 16, ...rest };
}

export const architectures: readonly Architecture[] = [
  architecture("amd64", debian12("amd64", "x86_64-linux-gnu", "x86_64", "-Mintel"), "-m i386:x86-64"),
  architecture("arm", debian12("armhf", "arm-linux-gnueabihf", "arm"), "-m arm", { bits: 32, stack: 8 }),
  architecture("arm64", debian12("arm64", "aarch64-linux-gnu", "aarch64"), "-m aarch64"),
  architecture("loong64", debian13(), "-m loongarch64"),
  architecture("ppc64le", debian12("ppc64el", "powerpc64le-linux-gnu", "ppc64le"), "-m powerpc:common64 -EL"),
  architecture(
    "riscv64",
    debian12("riscv64", "riscv64-linux-gnu", "riscv64", "-Mno-aliases"),
    "-m riscv:rv64",
  ),
  architecture("s390x", debian12("s390x", "s390x-linux-gnu", "s390x"), "-m s390:64-bit", {
    bigEndian: true,
    stack: 8,
  }),
];

/** The command line that runs a program of an architecture: by its emulator, if it is not this machine's. */
export const emulated = ({ name, emulator }: Architecture, ...command: readonly string[]): string[] =>
  name === own ? [...command] : [emulator(), ...command];

/** An instruction without white space, comments, symbols and the mark of hexadecimal before an address. */
export const bare = (text: string): string =>
  text
    .replace(/\s*(# |\/\/|<|@ ).*$/, "")
    .replace(/0x(?=[0-9a-f]+$)/, "")
    .replace(/\s+/g, "");

/** The instructions that objdump finds by these arguments. On some architectures the bytes are shown as words. */
export function disassembly({ objdump }: Architecture, ...args: readonly string[]) {
  const lines = must(...objdump(), "-w", ...args).matchAll(/^ *([0-9a-f]+):\t([0-9a-f ]+)\t(.*)$/gm);
  return Array.from(lines, ([, address = "", bytes = "", code = ""]) => ({
    address,
    bytes: bytes.replaceAll(" ", ""),
    code,
  }));
}
