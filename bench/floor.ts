/**
 * The kernel's floor: programs of one page that no process can do with less than. They catch nothing, and are written
 * by the assembler of this project: one pauses for ever, the other ends at once.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { assemble, type Step } from "../ffi/assembler/routine.ts";
import { type Architecture, architectures } from "../ffi/freestanding/architectures.ts";
import { elfFile, sizeofHeaders } from "../ffi/freestanding/elf.ts";
import { dist } from "../tests/helpers/programs.ts";

function write(architecture: Architecture, path: string, steps: readonly Step[]): string {
  const memory = new Uint8Array(256);
  const base = sizeofHeaders(architecture);
  const { size } = assemble(architecture.encoder, [{ label: "main", steps }], memory, base);
  const symbols = [{ name: "main", address: base, size }];
  writeFileSync(path, elfFile(architecture, { code: memory.subarray(0, size), texts: size, symbols }), {
    mode: 0o755,
  });
  return path;
}

/** Writes both, for this machine or another one, into a folder, and returns their paths. */
export function writeFloor(name = process.arch === "x64" ? "amd64" : process.arch, folder = dist) {
  const architecture = architectures[name];
  if (architecture === undefined) throw new Error(`no encoder for ${name}`);
  const [pause, values] = architecture.pause;
  const pauses: Step[] = [{ label: "again" }, { systemCall: pause, values }, { jump: "again" }];
  const exits: Step[] = [{ systemCall: architecture.systemCalls.exit_group, values: [0] }];
  return {
    pauses: write(architecture, join(folder, "floor"), pauses),
    exits: write(architecture, join(folder, "floor-exit"), exits),
  };
}
