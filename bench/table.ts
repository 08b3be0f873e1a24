/**
 * The table of README.md, from bench/results.json. `bun bench/table.ts` writes it there.
 */
import { join } from "node:path";

/** Every value of a measure, by the measure's name. */
export type Samples = Record<string, number[]>;

export interface Results {
  date: string;
  machine: string;
  versions: Record<string, string>;
  instances: number;
  rounds: number;
  /** By the program's name. */
  samples: Record<string, Samples>;
  /** MiB of memory and milliseconds until the last is ready, by the program's name and the number of instances. */
  scale: Record<string, { count: number; memory: number; start: number }[]>;
  /** In bytes; of the image, per architecture. */
  size: { executable: number; image: number; reference: number };
}

/** What is shown of each measure: its title and the digits behind the point. */
const MEASURES = {
  "memory total": ["memory charged, KiB", 0],
  "memory anonymous": ["… anonymous, KiB", 0],
  "memory kernel": ["… kernel, KiB", 0],
  "memory file": ["… files, KiB", 0],
  private: ["private, KiB", 0],
  threads: ["threads", 0],
  mappings: ["mappings", 0],
  ready: ["exec to ready, ms", 1],
  version: ["exec to exit for the version, ms", 1],
  terminated: ["SIGTERM to exit, ms", 1],
  reaped: ["orphans reaped per second", 0],
  "reaping cpu": ["CPU time per 1,000 orphans, ms", 1],
  "longest zombie": ["longest seen zombie, ms", 0],
  "idle wake-ups": ["wake-ups in 10 s", 0],
  "idle cpu": ["CPU time in 10 s, ns", 0],
  container: ["crun create to delete, ms", 0],
  pod: ["podman pod, created to removed, ms", 0],
} as const;

/** The value below which this part of the values lies. */
export function quantile(values: readonly number[], part: number): number {
  const ordered = values.toSorted((one, other) => one - other);
  const position = (ordered.length - 1) * part;
  const low = ordered[Math.floor(position)] ?? 0;
  return low + ((ordered[Math.ceil(position)] ?? 0) - low) * (position - Math.floor(position));
}

/** Cost per instance, in KiB: the slope of the straight line through the points (least squares). */
export function slope(points: readonly { count: number; memory: number }[]): number {
  const mean = (of: (point: { count: number; memory: number }) => number) =>
    points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const [x, y] = [mean(({ count }) => count), mean(({ memory }) => memory)];
  const covariance = mean((point) => (point.count - x) * (point.memory - y));
  return (covariance / mean((point) => (point.count - x) ** 2)) * 1024;
}

/** Markdown: a row a measure, a column a program, each with the median and the middle half of the values. */
export function table(results: Results): string {
  const names = Object.keys(results.samples);
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const lines = [row(["", ...names]), row(["---", ...names.map(() => "---:")])];
  for (const [measure, [title, digits]] of Object.entries(MEASURES)) {
    const cells = names.map((name) => {
      const values = results.samples[name]?.[measure];
      if (values === undefined) return "";
      const [low, middle, high] = [0.25, 0.5, 0.75].map((part) => quantile(values, part).toFixed(digits));
      return low === high ? `${middle}` : `${middle} (${low}–${high})`;
    });
    lines.push(row([title, ...cells]));
  }
  lines.push("");
  for (const [name, points] of Object.entries(results.scale)) {
    const each = slope(points);
    const nodes = [110, 250, 500].map(
      (pods) => `${((each * pods) / 1024).toFixed(1)} MiB on a node of ${pods} pods`,
    );
    lines.push(
      `${name}, up to ${points.at(-1)?.count} instances: ${each.toFixed(0)} KiB each, ${nodes.join(", ")}.`,
      "",
    );
  }
  const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  const { executable, image, reference } = results.size;
  lines.push(
    `The executable has ${mebibytes(executable)} (C, static: ${mebibytes(reference)}), the image ${mebibytes(image)} compressed.`,
    "",
    `${results.date}, ${results.machine}; medians of ${results.rounds} rounds in turns, with the middle half of the values;`,
    `memory of ${results.instances} instances at a time.`,
  );
  return lines.join("\n");
}

const MARKS = ["<!-- bench: written by bench/table.ts -->\n", "<!-- /bench -->"] as const;

/** README.md with the table of these results in it. */
export function withTable(readme: string, results: Results): string {
  const [head = "", rest = ""] = readme.split(MARKS[0]);
  const tail = rest.split(MARKS[1])[1] ?? "";
  return `${head}${MARKS[0]}\n${table(results)}\n\n${MARKS[1]}${tail}`;
}

if (import.meta.main) {
  const readme = Bun.file(join(import.meta.dir, "../README.md"));
  const results: Results = await Bun.file(join(import.meta.dir, "results.json")).json();
  await Bun.write(readme, withTable(await readme.text(), results));
}
