/**
 * The memory of an instance under every kernel: writes the table of bench/README.md from what tests/kernels printed
 * when it ran last (dist/kernels). `npm run bench:kernels` runs that too.
 */
import { basename, join } from "node:path";
import { type Kernel, kernels, reportOf } from "../tests/kernels/kernels.ts";
import { STANDARD } from "./table.ts";

/** By the programs' names there. */
const COLUMNS = {
  pause: "freestanding",
  hosted: "hosted",
  reference: STANDARD,
  musl: "C, musl",
  floor: "floor",
};

function row(kernel: Kernel): string {
  const { of } = reportOf(kernel);
  const value = (program: string, name: string) => of(program).find((line) => line[0] === name)?.[1];
  const standard = Number(value("reference", "memory"));
  const cells = Object.keys(COLUMNS).map((program) => {
    const bytes = value(program, "memory");
    if (bytes === undefined) return "";
    const ratio = program === "reference" ? "" : ` ×${(Number(bytes) / standard).toFixed(2)}`;
    return `${(Number(bytes) / 1024).toFixed(1)}${ratio}`;
  });
  return `| ${[kernel.architecture.name, value("pause", "kernel"), kernel.kibibytes, ...cells].join(" | ")} |`;
}

function table(): string {
  const byName = kernels.toSorted((one, other) =>
    one.architecture.name.localeCompare(other.architecture.name),
  );
  return [
    `| | kernel | page | ${Object.values(COLUMNS).join(" | ")} |`,
    `| --- | --- | ---: |${" ---: |".repeat(Object.keys(COLUMNS).length)}`,
    ...byName.map(row),
  ].join("\n");
}

try {
  const file = Bun.file(join(import.meta.dir, "README.md"));
  const between = /(?<=<!-- kernels: .*\n)[\s\S]*(?=<!-- \/kernels -->)/;
  await Bun.write(file, (await file.text()).replace(between, `\n${table()}\n\n`));
} catch (error) {
  console.error(`${basename(import.meta.path)}: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
