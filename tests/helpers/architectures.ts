/**
 * The architectures that there are encoders for, and the tools that know them too.
 */
import { aarch64 } from "../../ffi/assembler/aarch64.ts";
import { arm } from "../../ffi/assembler/arm.ts";
import { ppc64le } from "../../ffi/assembler/ppc64le.ts";
import { riscv64 } from "../../ffi/assembler/riscv64.ts";
import type { Encoder, FunctionEncoder } from "../../ffi/assembler/routine.ts";
import { s390x } from "../../ffi/assembler/s390x.ts";
import { x86_64 } from "../../ffi/assembler/x86_64.ts";

export interface Architecture {
  readonly name: string;
  readonly encoder: Encoder | FunctionEncoder;
  /** What objdump of binutils-multiarch has to be told. */
  readonly objdump: readonly string[];
  /** The bits of a machine word. */
  readonly bits: 32 | 64;
  readonly bigEndian?: boolean;
  /** What the stack pointer is a multiple of, in bytes. */
  readonly stack: number;
  readonly compiler: string;
  readonly emulator: string;
  /** With Debian's packages for them. */
  readonly tools: Readonly<Record<"objdump" | "run", Record<string, string>>>;
}

function architecture(
  name: string,
  encoder: Encoder | FunctionEncoder,
  objdump: string,
  tuple: string,
  cpu: string,
  rest: { bits?: 32; bigEndian?: true; stack: number },
): Architecture {
  const [compiler, emulator] = [`${tuple}-gcc`, `qemu-${cpu}-static`];
  const debian = { arm: "armhf", ppc64le: "ppc64el" }[name] ?? name;
  const own = process.arch === "arm64" ? "arm64" : "amd64";
  const cross = `gcc-${tuple.replace("_", "-")} libc6-dev-${debian}-cross`;
  const packages = name === own ? "gcc libc6-dev" : cross;
  const tools = {
    objdump: { objdump: "binutils-multiarch" },
    run: { [compiler]: packages, [emulator]: "qemu-user-static" },
  };
  return { name, encoder, objdump: objdump.split(" "), bits: 64, compiler, emulator, tools, ...rest };
}

export const architectures: readonly Architecture[] = [
  architecture("amd64", x86_64, "-m i386:x86-64 -M intel", "x86_64-linux-gnu", "x86_64", { stack: 16 }),
  architecture("arm", arm, "-m arm", "arm-linux-gnueabihf", "arm", { bits: 32, stack: 8 }),
  architecture("arm64", aarch64, "-m aarch64", "aarch64-linux-gnu", "aarch64", { stack: 16 }),
  architecture("ppc64le", ppc64le, "-m powerpc:common64 -EL", "powerpc64le-linux-gnu", "ppc64le", {
    stack: 16,
  }),
  architecture("riscv64", riscv64, "-m riscv:rv64 -M no-aliases", "riscv64-linux-gnu", "riscv64", {
    stack: 16,
  }),
  architecture("s390x", s390x, "-m s390:64-bit", "s390x-linux-gnu", "s390x", { bigEndian: true, stack: 8 }),
];
