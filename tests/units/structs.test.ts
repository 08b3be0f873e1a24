/**
 * The structs and constants, held against the C compilers' own: one that is wrong is an error of the compiler.
 */
import { dlopen } from "bun:ffi";
import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import * as constants from "../../ffi/constants.ts";
import { architectures } from "../../ffi/freestanding/architectures.ts";
import { offsetof, sizeof, structSigaction } from "../../ffi/hosted/structs.ts";
import { type Architecture, architectures as toolsOf } from "../helpers/architectures.ts";
import { needing } from "../helpers/expect.ts";
import { must } from "../helpers/process.ts";
import { dist } from "../helpers/programs.ts";

const { describeSignal, SA_NOCLDSTOP } = constants;

/** Every number that has a name in init.ts' files, but SIG_DFL and SIG_IGN, which are pointers in C. */
const NUMBERS = [
  ...Object.entries(constants).filter(([name, value]) => typeof value === "number" && !/^SIG_/.test(name)),
  ...Array.from({ length: 31 }, (_, index) => [describeSignal(index + 1)?.name, index + 1] as const),
];

/** linux/signal_types.h is not for user space: this is its text. Where the C library's sa_handler is in a union, it is a macro. */
const KERNEL = `#include <stddef.h>
#include <asm/signal.h>
#include <asm/unistd.h>
#include <linux/wait.h>
#undef sa_handler
struct kernel_sigaction {
  void (*sa_handler)(int);
  unsigned long sa_flags;
#ifdef SA_RESTORER
  void (*sa_restorer)(void);
#endif
  unsigned long sa_mask[8 / sizeof(long)];
};`;
const GLIBC = "#include <stddef.h>\n#include <signal.h>\n#include <ucontext.h>";

/** Compiles assertions about what this declares. */
function assert({ name, compiler }: Architecture, declarations: string, assertions: readonly string[]): void {
  const source = join(dist, `structs-${name}.c`);
  const lines = assertions.map((assertion) => `_Static_assert(${assertion}, "${assertion}");`);
  writeFileSync(source, `${[declarations, ...lines].join("\n")}\n`);
  must(...compiler(), "-fsyntax-only", source);
}

for (const tools of toolsOf) {
  const { name: architecture, needed } = tools;
  const compiler = needing(needed.run);

  compiler.test(`${architecture}: the kernel's struct sigaction`, () => {
    const { encoder, sigaction = [], systemCalls = {}, pause = [] } = architectures[architecture] ?? {};
    const { wordSize = 0 } = encoder ?? {};
    expect(wordSize).toBeGreaterThan(0);
    assert(tools, KERNEL, [
      `sizeof(struct kernel_sigaction) == ${sigaction.length * wordSize + (8 - wordSize)}`,
      ...sigaction.map(
        (field, index) => `offsetof(struct kernel_sigaction, ${field}) == ${index * wordSize}`,
      ),
      ...NUMBERS.map(([name, value]) => `${name} == ${value}`),
      ...Object.entries(systemCalls).map(([call, number]) => {
        const known = architecture === "arm" && call === "geteuid" ? "geteuid32" : call;
        return `__NR_${known} == ${number}`;
      }),
      `__NR_${pause[2]} == ${pause[0]}`,
    ]);
  });

  if (architecture !== "amd64" && architecture !== "arm64") continue;
  compiler.test(`${architecture}: glibc's struct sigaction and ucontext_t`, () => {
    const fieldsOf = (struct: string, fields: Record<string, number>) =>
      Object.entries(fields).map(([field, offset]) => `offsetof(${struct}${field}) == ${offset}`);
    assert(tools, GLIBC, [
      ...fieldsOf("struct sigaction, ", offsetof.sigaction),
      ...fieldsOf("ucontext_t, uc_stack.", offsetof.ucontext),
      `sizeof(struct sigaction) == ${sizeof.sigaction}`,
      `sizeof(sigset_t) == ${sizeof.sigset_t}`,
      `sizeof(ucontext_t) <= ${sizeof.ucontext}`,
    ]);
  });
}

test("the fields lie where the layout says", () => {
  const bytes = structSigaction(0x0102_0304_0506, SA_NOCLDSTOP);
  const expected = new Uint8Array(sizeof.sigaction);
  expected.set([6, 5, 4, 3, 2, 1], offsetof.sigaction.sa_handler);
  expected[offsetof.sigaction.sa_flags] = SA_NOCLDSTOP;
  expect(bytes).toEqual(expected);
});

test("signals are described as strsignal(3) does", () => {
  const { strsignal } = dlopen("libc.so.6", { strsignal: { args: ["i32"], returns: "cstring" } }).symbols;
  for (let signo = 1; signo <= 31; signo++)
    expect([signo, describeSignal(signo)?.description]).toEqual([signo, String(strsignal(signo))]);
  for (const signo of [-1, 0, 32, 64, 1.5, Number.NaN]) expect(describeSignal(signo)).toBeUndefined();
});
