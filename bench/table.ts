/**
 * The tables of README.md and bench/README.md, of a benchmark's results.
 */

/** Values of one measure: how many, the least, and the quartiles. */
export interface Summary {
  readonly count: number;
  readonly least: number;
  readonly low: number;
  readonly median: number;
  readonly high: number;
}

export interface Results {
  date: string;
  machine: string;
  versions: Record<string, string>;
  instances: number;
  rounds: number;
  /** By measure, then by peer. */
  measures: Record<string, Record<string, Summary>>;
  /** MiB, by peer, then by the number of pods. */
  scale: Record<string, Record<string, number>>;
}

type Unit = "KiB" | "ms" | "a second";

/** What a measure is called, and its unit. */
export const MEASURES: Readonly<Record<string, readonly [title: string, unit: Unit]>> = {
  "memory total": ["memory charged at rest", "KiB"],
  "memory anonymous": ["… anonymous", "KiB"],
  "memory stack": ["… of that the stack", "KiB"],
  "memory file": ["… files", "KiB"],
  "memory kernel": ["… the kernel's", "KiB"],
  "memory page tables": ["… of that page tables", "KiB"],
  ready: ["exec to ready", "ms"],
  exit: ["exec to exit (`-v`)", "ms"],
  terminated: ["SIGTERM to exit", "ms"],
  reaped: ["orphans reaped", "a second"],
  "reaping cpu": ["CPU for 1,000 orphans", "ms"],
  executable: ["executable", "KiB"],
  "image compressed": ["image, compressed", "KiB"],
  "image unpacked": ["image, unpacked", "KiB"],
  "crun warm time": ["crun container, warm: time", "ms"],
  "crun warm peak": ["… peak memory of its cgroup", "KiB"],
  "crun cold time": ["crun container, cold: time", "ms"],
  "crun cold peak": ["… peak memory of its cgroup", "KiB"],
  "podman warm time": ["podman pod, warm: time", "ms"],
  "podman warm peak": ["… peak memory of its cgroup", "KiB"],
  "podman cold time": ["podman pod, cold: time", "ms"],
  "podman cold peak": ["… peak memory of its cgroup", "KiB"],
  "containerd warm time": ["containerd pod, warm: time", "ms"],
  "containerd warm peak": ["… peak memory of its cgroup", "KiB"],
  "containerd cold time": ["containerd pod, cold: time", "ms"],
  "containerd cold peak": ["… peak memory of its cgroup", "KiB"],
};

/** What README.md shows of it. */
const SHORT = {
  measures: [
    "memory total",
    "ready",
    "reaping cpu",
    "executable",
    "image compressed",
    "containerd cold peak",
  ],
  titles: { "containerd cold peak": "containerd pod, cold: peak memory" } as Record<string, string>,
  peers: ["freestanding", "hosted", "C, glibc", "C, musl", "catatonit -P", "floor"],
};

/** The peer beside which all the others are held. */
export const STANDARD = "C, glibc";

/** KiB: a cgroup is charged for up to 64 pages ahead, by each of two CPUs (mm/memcontrol.c, MEMCG_CHARGE_BATCH). */
const CHARGED_AHEAD = 512;

/** What Bun takes itself. Its `exit` is measured, and nothing else. */
export const EMPTY = "empty script of Bun";

/** The value below which this part of the values lies. */
export function quantile(values: readonly number[], part: number): number {
  const ordered = values.toSorted((one, other) => one - other);
  const position = (ordered.length - 1) * part;
  const low = ordered[Math.floor(position)] ?? 0;
  return low + ((ordered[Math.ceil(position)] ?? 0) - low) * (position - Math.floor(position));
}

/** Four digits are more than any round can tell. */
const round = (value: number) => Number(value.toPrecision(4));

export const summary = (values: readonly number[]): Summary => ({
  count: values.length,
  least: round(quantile(values, 0)),
  low: round(quantile(values, 0.25)),
  median: round(quantile(values, 0.5)),
  high: round(quantile(values, 0.75)),
});

const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** "2.28 MiB", or with its middle half "2.28 MiB (2.24–2.35)": in brackets too it is MiB. */
function withUnit({ median, low, high }: Summary, unit: Unit, withQuartiles = false): string {
  let [divisor, name]: [number, string] = [1, unit];
  if (unit === "KiB" && median >= 1000) [divisor, name] = [1024, "MiB"];
  if (unit === "KiB" && median > 0 && median < 1) [divisor, name] = [1 / 1024, "bytes"];
  const number = (value: number) => digits.format(value / divisor);
  const quartiles = withQuartiles && number(low) !== number(high) ? ` (${number(low)}–${number(high)})` : "";
  return `${number(median)} ${name}${quartiles}`;
}

/**
 * How many times the standard's this is; "≈" if the middle halves of both overlap, because then these rounds cannot
 * tell them apart, or if the medians differ by less than what is counted with can tell.
 */
export function ratio(own: Summary, standard: Summary, resolution = 0): string {
  if (Math.abs(own.median - standard.median) < resolution) return "≈";
  if (own.low <= standard.high && standard.low <= own.high) return "≈";
  const times = own.median / standard.median;
  return `×${times >= 10 ? digits.format(times) : times.toFixed(2)}`;
}

/** Ratios of memory reproduce; those of times do not, and of sizes nobody needs them. */
const hasRatio = (measure: string) => /^memory|peak$/.test(measure);

/** Markdown: a row a measure, a column a peer. */
function markdown(
  { measures }: Results,
  rows: readonly string[],
  peers: readonly string[],
  titles: Readonly<Record<string, string>>,
  withQuartiles: boolean,
): string {
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const lines = [row(["", ...peers]), row(["---", ...peers.map(() => "---:")])];
  for (const measure of rows) {
    const of = measures[measure];
    if (of === undefined) continue;
    const [title, unit] = MEASURES[measure] ?? [measure, "ms"];
    const standard = of[STANDARD];
    const resolution = measure.endsWith("peak") ? CHARGED_AHEAD : 0;
    const cells = peers.map((name) => {
      const own = of[name];
      if (own === undefined) return "";
      const value = withUnit(own, unit, withQuartiles);
      const isAlone =
        name === STANDARD || standard === undefined || standard.median === 0 || !hasRatio(measure);
      return isAlone ? value : `${value} ${ratio(own, standard, resolution)}`;
    });
    lines.push(row([titles[measure] ?? title, ...cells]));
  }
  return lines.join("\n");
}

const measuredOn = ({ date, machine, rounds, instances }: Results) =>
  `${date}, ${machine}. Medians of ${rounds} rounds in turns; memory of ${instances} processes at a time.`;

/** README.md's. */
export function table(results: Results): string {
  const peers = SHORT.peers.filter((name) => results.measures["memory total"]?.[name] !== undefined);
  const rows = markdown(results, SHORT.measures, peers, SHORT.titles, false);
  return `Each value is for one process. × is the ratio to C with glibc, ≈ means no measurable difference. Memory ratios reproduce on other
machines, [times do not](bench/README.md#what-reproduces). The floor is a program of one page that only pauses.

${rows}

${measuredOn(results)}`;
}

/** bench/README.md's: all of it. */
export function fullTable(results: Results): string {
  const peers = Object.keys(results.measures["memory total"] ?? {});
  const versions = Object.entries(results.versions).map(([name, version]) => `${name} ${version}`);
  const empty = results.measures.exit?.[EMPTY];
  const besideBun = empty ? `From exec to exit an ${EMPTY} takes ${withUnit(empty, "ms")}.\n\n` : "";
  const rows = markdown(results, Object.keys(MEASURES), peers, {}, true);
  return `Each value is for one process. In brackets is the middle half of the values, in the same unit. After memory, × is the ratio to C
with glibc; ≈ means that this run cannot tell them apart. The floor is a program of one page that only pauses: hardly a
process takes less.

${rows}

${measuredOn(results)}

${besideBun}${versions.join(", ")}.`;
}

const MARKS = ["<!-- bench: written by bench/publish.ts -->\n", "<!-- /bench -->"] as const;

/** A document with a table of these results between the marks. */
export function withTable(document: string, results: Results, make = table): string {
  const [head = "", rest = ""] = document.split(MARKS[0]);
  const tail = rest.split(MARKS[1])[1] ?? "";
  return `${head}${MARKS[0]}\n${make(results)}\n\n${MARKS[1]}${tail}`;
}
