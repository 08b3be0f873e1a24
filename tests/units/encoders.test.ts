/**
 * The instructions, held against a disassembler that knows nothing of this project: objdump of binutils.
 */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  assemble,
  type Encoder,
  type FunctionEncoder,
  type Part,
  type Step,
  UnsupportedRoutine,
  type Value,
} from "../../ffi/assembler/routine.ts";
import { x86_64 } from "../../ffi/assembler/x86_64.ts";
import { listing } from "../../ffi/freestanding/listing.ts";
import { type Architecture, architectures, bare, disassembly } from "../helpers/architectures.ts";
import { cases } from "../helpers/dice.ts";
import { needing } from "../helpers/expect.ts";
import { dist } from "../helpers/programs.ts";

const BASE = 0x10000;

/** Steps between something that lies before them and something that lies behind. */
const between = (steps: readonly Step[]): Part[] => [
  { label: "before", data: new TextEncoder().encode("before\n") },
  { label: "main", steps },
  { label: "behind", steps: [{ return: true }] },
];

function assembled(encoder: Encoder | FunctionEncoder, parts: readonly Part[], size = 0x80000) {
  const memory = new Uint8Array(size);
  return { memory, ...assemble(encoder, parts, memory, BASE, true) };
}

/** Expects that the listing says what objdump says of the code up to this label; returns how many instructions it is. */
function expectObjdump(architecture: Architecture, parts: readonly Part[], until = ""): number {
  const { name, encoder, raw } = architecture;
  const { memory, labels, listing, size } = assembled(encoder, parts);
  const { main = 0, [until]: end = BASE + size } = labels;
  const file = join(dist, `routine-${name}.bin`);
  writeFileSync(file, memory.subarray(main - BASE, end - BASE));
  const theirs = disassembly(architecture, ...raw, "-b", "binary", "-D", `--adjust-vma=${main}`, file);
  const ours = listing.filter(({ address }) => address >= main && address < end);
  expect(ours.map(({ address, text }) => `${address.toString(16)} ${bare(text)}`)).toEqual(
    theirs.map(({ address, code }) => `${address} ${bare(code)}`),
  );
  return ours.length;
}

/** What it takes one more bit, one more instruction or another instruction to say. */
const integers = ({ bits }: Architecture): number[] =>
  [0, 8, 11, 12, 15, 16, 31, 32, 33, 44, 47, 48, 52]
    .flatMap((bit) => [2 ** bit - 1, 2 ** bit, 2 ** bit + 1, 2 ** bit * 1.5, -(2 ** bit), -(2 ** bit) - 1])
    .concat(0x12345678, 0x1234_5678_9abc, Number.MAX_SAFE_INTEGER, -Number.MAX_SAFE_INTEGER)
    .filter((value) => Number.isInteger(value) && (bits === 64 || (value >= -(2 ** 31) && value < 2 ** 32)));

const forms: Record<string, (architecture: Architecture) => Step[]> = {
  "every form of an integer, in every register and on the stack": (architecture) =>
    integers(architecture).flatMap((value) => [
      { systemCall: 1, values: Array(6).fill(value) },
      { systemCall: 300, values: [{ words: [value, 0, -1, value] }] },
    ]),
  "addresses, in every register and on the stack": () => [
    ...["before", "main", "behind"].map((label) => ({ systemCall: 1, values: Array(6).fill({ label }) })),
    { systemCall: 1, values: [{ words: [{ label: "before" }] }, { words: [{ label: "behind" }, 1, 2] }] },
    ...[0, 1, 2, 3, 4, 5].map((register) => ({
      systemCall: 1,
      values: [...Array(register).fill(0), { words: [1, 2] }],
    })),
  ],
  "jumps back and forth, on every condition": () =>
    (["positive", "negative", 0, 1, 127] as const)
      .flatMap((when): Step[] => [
        { jump: "main", when },
        { jump: "behind", when },
      ])
      .concat({ jump: "main" }, { jump: "behind" }),
  "arguments of one to four characters": () =>
    ["v", "-v", "-V\x7f", "-\x01ab"].flatMap((whenArgument) => [
      { jump: "main", whenArgument },
      { jump: "behind", whenArgument },
    ]),
};

/** What a reader expects of a call and a jump on its error: the least that shows what is an architecture's own. */
const CALL: readonly Step[] = [
  { systemCall: 20, values: [0x12345678, { words: [{ label: "before" }] }] },
  { jump: "main", when: "negative" },
];

const expected: Record<string, string> = {
  amd64: `mov edi,0x12345678; push 0x0; lea rax,[rip+0xffffffffffffffeb]; push rax; mov rsi,rsp; mov eax,0x14; syscall;
    add rsp,0x10; test eax,eax; jl 10007; ret`,
  arm: `movw r0, #22136; movt r0, #4660; sub sp, sp, #8; sub r6, pc, #28; sub r6, r6, #0, 24; str r6, [sp]; mov r1, sp;
    movw r7, #20; svc 0x00000000; add sp, sp, #8; cmp r0, #0; blt 10008; bx lr`,
  arm64: `mov x0, #0x5678; movk x0, #0x1234, lsl #16; sub sp, sp, #0x10; adr x9, 10000; str x9, [sp]; mov x1, sp;
    mov x8, #0x14; svc #0x0; add sp, sp, #0x10; cmp w0, #0x0; b.lt 10008; ret`,
  loong64: `lu12i.w $a0, 74565; ori $a0, $a0, 0x678; addi.d $sp, $sp, -16; pcaddu12i $t0, 0; addi.d $t0, $t0, -20;
    st.d $t0, $sp, 0; addi.d $a1, $sp, 0; addi.w $a7, $zero, 20; syscall 0x0; addi.d $sp, $sp, 16;
    addi.w $t0, $a0, 0; blt $t0, $zero, -44; jirl $zero, $ra, 0`,
  ppc64le: `lis r3,4660; ori r3,r3,22136; addi r1,r1,-16; mflr r0; bcl 20,4*cr7+so,1001c; mflr r9; mtlr r0;
    addi r9,r9,-28; std r9,0(r1); mr r4,r1; li r0,20; sc; bns 10040; neg r3,r3; addi r1,r1,16; cmpwi r3,0; blt 10008; blr`,
  riscv64: `lui a0,0x12345; addiw a0,a0,1656; addi sp,sp,-16; auipc t0,0x0; addi t0,t0,-20; sd t0,0(sp); addi a1,sp,0;
    addi a7,zero,20; ecall; addi sp,sp,16; addiw t0,a0,0; blt t0,zero,10008; jalr zero,0(ra)`,
  s390x: `lgfi %r2,305419896; aghi %r15,-8; larl %r0,10000; stg %r0,0(%r15); lgr %r3,%r15; lghi %r1,20; svc 0;
    aghi %r15,8; chi %r2,0; jl 10008; br %r14`,
};

/** A C function that calls others, at addresses that need all their digits. */
const FUNCTION: readonly Step[] = [
  { begin: 0x7f12_3456_789a },
  { label: "again" },
  { call: 0x7f00_dead_beef, values: [1, -1, { label: "before" }, { words: [1] }, 2 ** 32, -(2 ** 48) - 2] },
  { jump: "again", when: "positive" },
  { end: true },
];

const expectedFunction: Record<string, string> = {
  amd64: `push rbx; push r12; sub rsp,0x8; xor eax,eax; movabs r11,0x7f123456789a; call r11; mov rbx,rax;
    mov r12d,DWORD PTR [rbx]; mov edi,0x1; mov rsi,0xffffffffffffffff; lea rdx,[rip+0xffffffffffffffca]; push 0x0;
    mov eax,0x1; push rax; mov rcx,rsp; movabs r8,0x100000000; movabs r9,0xfffefffffffffffe; xor eax,eax;
    movabs r11,0x7f00deadbeef; call r11; add rsp,0x10; test eax,eax; jg 10023; mov DWORD PTR [rbx],r12d; add rsp,0x8;
    pop r12; pop rbx; ret; ret`,
  arm64: `stp x29, x30, [sp, #-32]!; mov x29, sp; stp x19, x20, [sp, #16]; mov x16, #0x789a;
    movk x16, #0x3456, lsl #16; movk x16, #0x7f12, lsl #32; blr x16; mov x19, x0; ldr w20, [x19]; mov x0, #0x1;
    mov x1, #0xffffffffffffffff; adr x2, 10000; sub sp, sp, #0x10; mov x9, #0x1; str x9, [sp]; mov x3, sp;
    mov x4, #0x100000000; mov x5, #0xfffffffffffffffe; movk x5, #0xfffe, lsl #48; mov x16, #0xbeef;
    movk x16, #0xdead, lsl #16; movk x16, #0x7f00, lsl #32; blr x16; add sp, sp, #0x10; cmp w0, #0x0; b.gt 1002c;
    str w20, [x19]; ldp x19, x20, [sp, #16]; ldp x29, x30, [sp], #32; ret; ret`,
};

for (const architecture of architectures) {
  const { name, encoder, needed } = architecture;
  const objdump = needing(needed.objdump);
  describe(name, () => {
    for (const [form, steps] of Object.entries(forms))
      objdump.test(form, () => {
        const made = steps(architecture);
        expect(expectObjdump(architecture, between(made))).toBeGreaterThan(made.length);
      });

    objdump.test("addresses of what is up to 30 KiB away", () => {
      const away = Array.from({ length: 120 }, (_, index) => ({
        label: `data ${index}`,
        data: new Uint8Array(256),
      }));
      const steps = away.map(({ label }) => ({ systemCall: 1, values: [{ label }, 0, { label: "main" }] }));
      const parts = [...between(steps), ...away];
      expect(expectObjdump(architecture, parts, "data 0")).toBeGreaterThan(120 * 4);
    });

    const gap = { data: new Uint8Array(name === "s390x" ? 0xc000 : 0x30000) };
    objdump.test(`jumps over ${gap.data.length / 1024} KiB`, () => {
      const steps = [{ jump: "before" }, { jump: "behind" }];
      const parts = [
        { label: "before", ...gap },
        { label: "main", steps },
        { label: "gap", ...gap },
        { label: "behind", steps: [] },
      ];
      expect(expectObjdump(architecture, parts, "gap")).toBeGreaterThanOrEqual(steps.length);
    });

    const texts = (steps: readonly Step[]) =>
      assembled(encoder, between(steps))
        .listing.slice(1)
        .map(({ text }) => text);

    test("a system call is what a reader expects", () => {
      expect(texts(CALL)).toEqual((expected[name] ?? "").split(/;\s+/));
    });

    if (expectedFunction[name] === undefined)
      test("C functions are refused", () => {
        for (const step of FUNCTION.filter((step) => !("label" in step || "jump" in step)))
          expect(() => texts([step])).toThrow(UnsupportedRoutine);
      });
    else
      objdump.test("a C function is what a reader and objdump expect", () => {
        expect(texts(FUNCTION)).toEqual((expectedFunction[name] ?? "").split(/;\s+/));
        expectObjdump(architecture, between(FUNCTION));
      });

    test("words that are more than a call may put on the stack are refused, and fewer are not", () => {
      const word = architecture.bits / 8;
      const call = (...sizes: readonly number[]) => {
        const values = sizes.map((size) => ({ words: Array(size / word).fill(0) }));
        assembled(encoder, between([{ systemCall: 1, values }]));
      };
      call(112);
      call(64, 48);
      for (const sizes of [[112 + word], [64, 48 + word], [8 * 5000]])
        expect(() => call(...sizes)).toThrow("bytes on the stack");
    });
  });
}

const parts = (...values: Value[]): Part[] => between([{ systemCall: 1, values }]);

/** What assembling is refused with. */
function refusalOf(assembling: () => void): UnsupportedRoutine | undefined {
  try {
    assembling();
    return undefined;
  } catch (error) {
    if (error instanceof UnsupportedRoutine) return error;
    throw error;
  }
}

test("what no routine can be made of is refused by name, and says for which reason it was there", () => {
  const call = (...values: Value[]): Step => ({ systemCall: 1, values });
  const find = (whenArgument: string): Step => ({ jump: "main", whenArgument });
  const numbers = [0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, -(2 ** 53)];
  const wrong: Record<string, Step[]> = {
    "fits no register": [...numbers.map((value) => call(value)), call({ words: [2 ** 53] })],
    "7 arguments": [call(1, 2, 3, 4, 5, 6, 7)],
    "on the stack": [call({ words: Array(5000).fill(0) })],
    "with 0 to 127": [-1, 0.5, 128, 256, 4096].map((when) => ({ jump: "main", when })),
    // The low byte of U+012D is that of "-"; "a", then "b" would be taken for the third.
    "ASCII characters": ["\u012dv", "\u00e9", "a\0b"].map(find),
    "at most 127 bytes": [find("x".repeat(128))],
    "is nowhere": [{ jump: "nowhere" }, call({ label: "nowhere" }), call({ words: [{ label: "nowhere" }] })],
  };
  const reasons = (...steps: Step[]) =>
    between(steps.map((step, index) => ({ ...step, reason: `init.ts:${index}` })));
  for (const { encoder } of architectures) {
    for (const [says, steps] of Object.entries(wrong))
      for (const step of steps) {
        const refusal = refusalOf(() => assembled(encoder, reasons(call(), step, call())));
        expect([refusal?.message, refusal?.reason]).toEqual([expect.stringContaining(says), "init.ts:1"]);
      }
    for (const when of [0, 127]) assembled(encoder, between([{ jump: "main", when }]));
    assembled(encoder, between([find("x".repeat(127))]));
  }
});

test("what one architecture cannot say is refused there, not said wrongly", () => {
  const far = (distance: number): Part => ({ label: "far", data: new Uint8Array(distance) });
  const data: Part = { label: "data", data: new Uint8Array(1) };
  const refusedBy = (refused: readonly Part[]) =>
    architectures
      .filter(({ encoder }) => refusalOf(() => assembled(encoder, refused, 0x40000)) !== undefined)
      .map(({ name }) => name);
  expect(refusedBy(parts(2 ** 32))).toEqual(["arm"]);
  expect(refusedBy(parts(-(2 ** 31) - 1))).toEqual(["arm"]);
  expect(refusedBy([data, far(0xffff), ...parts({ label: "data" })])).toEqual(["arm", "ppc64le"]);
  const jumpOver = (distance: number, jump: Step): Part[] => [
    far(distance),
    { label: "main", steps: [jump] },
  ];
  expect(refusedBy(jumpOver(0x2000, { jump: "far", when: 0 }))).toEqual(["riscv64"]);
  expect(refusedBy(jumpOver(0x9000, { jump: "far", when: 0 }))).toEqual(["ppc64le", "riscv64"]);
  const narrow = ["loong64", "ppc64le", "riscv64", "s390x"];
  expect(refusedBy(jumpOver(0x30000, { jump: "far", when: 0 }))).toEqual(narrow);
  expect(refusedBy(jumpOver(0x30000, { jump: "far" }))).toEqual(["s390x"]);
});

/** Jumps, each over the next one, that are short where `last` fits between the last one and its target. */
const interlocking = (count: number, last: number): Part[] => {
  const filler = (size: number): Step[] => Array(size).fill({ return: true });
  const steps = Array.from({ length: count }, (_, index): Step[] => [
    { jump: `target ${index}` },
    ...(index > 0 ? [{ label: `target ${index - 1}` }] : []),
    ...filler(125),
  ]);
  return [
    { label: "main", steps: [...steps.flat(), ...filler(last), { label: `target ${count - 1}` }] },
    { label: "behind", steps: [{ return: true }] },
  ];
};

test("jumps whose lengths depend on each other are as short as they can be, however many there are", () => {
  for (const count of [1, 15, 100]) {
    const behind = (last: number) => assembled(x86_64, interlocking(count, last)).labels.behind;
    expect(behind(2)).toBe(BASE + count * (2 + 125) + 2);
    expect(behind(3)).toBe(BASE + count * (5 + 125) + 3);
  }
});

test("a jump that would be short and long in turns for ever is long", () => {
  // Over the second the first one is too far where the second is long; it then moves the second to where that would
  // be short, before a target that does not move.
  const parts: Part[] = [
    {
      label: "main",
      steps: [
        { jump: "near" },
        ...Array<Step>(119).fill({ return: true }),
        { jump: "aligned", when: 1 },
        { label: "near" },
      ],
    },
    { label: "aligned", steps: [{ return: true }], alignment: 256 },
  ];
  let passes = 0;
  const counting: Encoder = {
    ...x86_64,
    jump(code, target) {
      if (++passes > 100) throw new Error("there is no end of it");
      x86_64.jump(code, target);
    },
  };
  expect(assembled(counting, parts).labels).toMatchObject({ near: BASE + 5 + 122 + 6, aligned: BASE + 256 });
});

test("however jumps and alignments are mixed, there is an end, and every jump meets its label", async () => {
  const lengths = new Set<number>();
  await cases(300, (dice) => {
    const count = dice.int(1, 40);
    const parts = Array.from({ length: count }, (_, index): Part => {
      const jump = (): Step => {
        const jump = `${dice.int(0, count - 1)}`;
        return dice.chance(0.5) ? { jump } : { jump, when: "positive" };
      };
      const steps = dice.list(0, 40, () => (dice.chance(0.1) ? jump() : ({ return: true } as const)));
      return { label: `${index}`, steps, alignment: dice.pick([1, 1, 2, 16, 64]) };
    });
    const { memory, labels, listing } = assembled(x86_64, parts);
    const bytes = new DataView(memory.buffer);
    for (const { address, size, target } of listing) {
      if (target === undefined) continue;
      const end = address + size - BASE;
      const distance = size === 2 ? bytes.getInt8(end - 1) : bytes.getInt32(end - 4, true);
      expect(BASE + end + distance).toBe(labels[target] ?? 0);
      lengths.add(size);
    }
  });
  expect(lengths).toEqual(new Set([2, 5, 6]));
});

test("a label that is nowhere and one that is at two places are told apart, whatever they are called", () => {
  const at = (label: string): Part => ({ label, steps: [{ return: true }] });
  for (const { encoder } of architectures)
    for (const label of ["main", "reap", ".1", "..1", "constructor", "toString", "__proto__", ""]) {
      const jump: Part = { label: "first", steps: [{ jump: label }, { label: "inside" }] };
      const { labels } = assembled(encoder, [jump, at(label)]);
      expect(labels[label]).toBe(labels.inside ?? 0);
      expect(() => assembled(encoder, [jump])).toThrow(`the label ${label} is nowhere`);
      expect(() => assembled(encoder, [at(label), at(label)])).toThrow(`the label ${label} is at two places`);
      const inside: Part = { label: "first", steps: [{ label }, { label }] };
      expect(() => assembled(encoder, [inside])).toThrow(`the label ${label} is at two places`);
    }
});

test("texts are data in the listing, whatever their length, and instructions are not", () => {
  const texts = ["", "v\n", "twelve bytes", "thirteen byte"];
  const parts: Part[] = [
    { label: "main", steps: [{ systemCall: 2 ** 40, values: [] }] },
    ...texts.map((text) => ({ label: `text ${text.length}`, data: new TextEncoder().encode(text) })),
  ];
  const { memory, labels, listing: lines } = assembled(x86_64, parts);
  const written = listing("title", BASE, memory, lines, Object.keys(labels), labels);
  for (const text of texts) expect(written).toContain(`: ${text.length} bytes  ${JSON.stringify(text)}\n`);
  expect(written).toContain(": 48 b8 00 00 00 00 00 01 00 00   movabs rax,0x10000000000\n");
});

test("parts that fill more than their memory are refused", () => {
  for (const { encoder } of architectures)
    expect(() => assembled(encoder, between(Array(50).fill({ jump: "main" })), 64)).toThrow(RangeError);
});

test("data lies where its alignment says, or the encoder's", () => {
  const data = new Uint8Array([1]);
  for (const { encoder } of architectures) {
    const { labels } = assembled(encoder, [
      { label: "first", data },
      { label: "second", data },
      { label: "third", data, alignment: 16 },
    ]);
    expect(labels).toEqual({ first: BASE, second: BASE + encoder.alignment, third: BASE + 16 });
  }
});
