/**
 * The freestanding executables as files: their segments, their system calls, and the listing, held against binutils.
 */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { architectures as tables } from "../../ffi/freestanding/architectures.ts";
import { architectures, bare, disassembly } from "../helpers/architectures.ts";
import { needing } from "../helpers/expect.ts";
import { must, output } from "../helpers/process.ts";
import { dist, root } from "../helpers/programs.ts";

/** How objdump says that the number of a system call is loaded. Its own instruction for the call comes next. */
const NUMBERS: Record<string, [load: RegExp, call: RegExp]> = {
  amd64: [/^mov +eax,0x([0-9a-f]+)$/, /^syscall/],
  arm: [/^mov[w]?\s+r7, #(\d+)/, /^svc/],
  arm64: [/^mov\s+x8, #0x([0-9a-f]+)/, /^svc/],
  loong64: [/^addi\.w\s+\$a7, \$zero, (\d+)$/, /^syscall/],
  ppc64le: [/^li +r0,(\d+)$/, /^sc/],
  riscv64: [/^addi\s+a7,zero,(\d+)$/, /^ecall/],
  s390x: [/^lghi\s+%r1,(\d+)$/, /^svc/],
};

for (const architecture of architectures) {
  const { name, elflint: lint, needed } = architecture;
  const executable = join(dist, "freestanding", name, "pause");
  const instructions = () => disassembly(architecture, "-d", executable);
  const listing = () => readFileSync(`${executable}.lst`, "utf8");

  needing(needed.objdump).describe(name, () => {
    test("at most 2,048 bytes, of which 1,024 are loaded (arm64 and amd64) in one segment that is never written", () => {
      expect(Bun.file(executable).size).toBeLessThanOrEqual(2048);
      const segments = must("readelf", "-lW", executable).matchAll(
        /^ {2}(\w+) +0x\S+ 0x\S+ 0x\S+ 0x(\S+) 0x(\S+) (...) 0x(\S+)$/gm,
      );
      const [load, stack, ...more] = Array.from(
        segments,
        ([, type, file, memory, permissions, alignment]) => ({
          type,
          file: Number.parseInt(file ?? "", 16),
          memory: Number.parseInt(memory ?? "", 16),
          permissions,
          alignment: Number.parseInt(alignment ?? "", 16),
        }),
      );
      expect(more).toEqual([]);
      const alignment = tables[name]?.pageSize;
      expect(load).toMatchObject({ type: "LOAD", permissions: "R E", alignment, file: load?.memory });
      expect(stack).toMatchObject({ type: "GNU_STACK", permissions: "RW ", memory: 0 });
      expect(load?.memory).toBeLessThanOrEqual(/^a.*64$/.test(name) ? 1024 : 1280);
      expect(must("readelf", "-dW", executable)).toContain("no dynamic section");
      expect(must("readelf", "-rW", executable)).toContain("no relocations");
    });

    needing(needed.elflint, { file: "file" }).test("eu-elflint and file have nothing to complain of", () => {
      expect(must(...lint(), "--gnu-ld", executable)).toBe("No errors\n");
      expect(must("file", "-b", executable)).toMatch(/pie executable.*statically linked, not stripped/);
      expect(output(["readelf", "-aW", executable]).stderr).toBe("");
    });

    test("the listing says what objdump says, of every instruction", () => {
      // objdump shows the bytes of these as words.
      const isWords = ["arm", "arm64", "loong64", "riscv64"].includes(name);
      const ours = listing().matchAll(/^ +([0-9a-f]+): ((?:[0-9a-f]{2} )+) +(.*)$/gm);
      const theirs = instructions();
      expect(theirs.length).toBeGreaterThan(100);
      expect(
        Array.from(ours, ([, address, shown = "", code = ""]) => {
          const bytes = shown.trim().split(" ");
          return { address, bytes: (isWords ? bytes.reverse() : bytes).join(""), code: bare(code) };
        }),
      ).toEqual(theirs.map((line) => ({ ...line, code: bare(line.code) })));
    });

    test("the listing names each routine, each text, and the line of init.ts for every call", () => {
      const text = listing();
      const names = must("nm", executable).matchAll(/^[0-9a-f]+ . (\S+)$/gm);
      const symbols = Array.from(names, ([, symbol]) => symbol ?? "");
      for (const symbol of ["main", "sigdown.SIGINT", "sigdown.SIGTERM", "sigreap"])
        expect(symbols).toContain(symbol);
      for (const symbol of symbols) expect(text).toContain(`\n${symbol}:\n`);
      const source = readFileSync(join(root, "init.ts"), "utf8").split("\n");
      const quoted = [...text.matchAll(/; init\.ts:(\d+) {2}(.*)$/gm)];
      expect(quoted.length).toBeGreaterThan(10);
      for (const [, line, quote] of quoted) expect(source[Number(line) - 1]?.trim()).toBe(quote ?? "");
      const quotes = quoted.map(([, , quote]) => quote).join("\n");
      for (const word of ["argv.some", "getpid()", "pause()"]) expect(quotes).toContain(word);
      for (const word of ["fprintf", "printf", "psignal", "_exit", "waitpid"])
        expect(quotes).toMatch(new RegExp(`\\b${word}\\(`));
    });

    test("it can make these system calls and no others", () => {
      const [load, call] = NUMBERS[name] ?? [/^$/, /^$/];
      const made: number[] = [];
      let number: number | undefined;
      for (const { code } of instructions()) {
        const loaded = load.exec(code)?.[1];
        if (loaded !== undefined) number = Number.parseInt(loaded, load.source.includes("0x") ? 16 : 10);
        if (!call.test(code)) continue;
        made.push(number ?? -1);
        number = undefined;
      }
      const { systemCalls, pause, hasRestorer } = tables[name] ?? {};
      const { rt_sigreturn, ...others } = { rt_sigreturn: -1, ...systemCalls };
      const expected = [...Object.values(others), pause?.[0] ?? -1, ...(hasRestorer ? [rt_sigreturn] : [])];
      expect(made.length).toBeGreaterThan(10);
      expect([...new Set(made)].toSorted()).toEqual(expected.toSorted());
    });
  });
}

test("what is reached in two ways is written once", () => {
  const listing = readFileSync(join(dist, "freestanding/amd64/pause.lst"), "utf8");
  expect(listing.match(/printf\(`init/g)).toHaveLength(1);
  expect(listing.match(/for \(;;\) pause\(\)/g)).toHaveLength(1);
});
