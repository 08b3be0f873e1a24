import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { SA_NOCLDSTOP } from "../ffi/libc.ts";
import { offsetof, sizeof, structSigaction } from "../ffi/sigaction.ts";
import { must } from "./helpers/process.ts";
import { dist } from "./helpers/programs.ts";
import { CC, needs } from "./helpers/tools.ts";

/** What the C compiler's own offsetof says, read from the object file. */
function layout(compiler: string, objcopy: string): bigint[] {
  const object = join(dist, "struct_sigaction.o");
  const data = join(dist, "struct_sigaction.bin");
  must(compiler, "-c", "-o", object, join(import.meta.dir, "helpers/struct_sigaction.c"));
  must(objcopy, "-O", "binary", "-j", ".rodata", object, data);
  return [...new BigUint64Array(Uint8Array.from(readFileSync(data)).buffer)];
}

const compilers = {
  "x86-64": ["cc", "objcopy", { ...CC, objcopy: "binutils" }],
  arm64: [
    "aarch64-linux-gnu-gcc",
    "aarch64-linux-gnu-objcopy",
    { "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross" },
  ],
} as const;

for (const [architecture, [compiler, objcopy, tools]] of Object.entries(compilers)) {
  const { skip, name } = needs(tools);
  test.skipIf(skip)(name(`struct sigaction is laid out as C does on ${architecture}`), () => {
    const ours = [...Object.values(offsetof), sizeof.sigaction, sizeof.sigset_t];
    expect(layout(compiler, objcopy)).toEqual(ours.map(BigInt));
  });
}

test("the fields lie where the layout says", () => {
  const bytes = structSigaction(0x0102_0304_0506, SA_NOCLDSTOP);
  const expected = new Uint8Array(sizeof.sigaction);
  expected.set([6, 5, 4, 3, 2, 1], offsetof.sa_handler);
  expected[offsetof.sa_flags] = SA_NOCLDSTOP;
  expect(bytes).toEqual(expected);
});
