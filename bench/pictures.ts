/**
 * The pictures of a benchmark's results: SVG without a background, in colours that can be read on light and on dark.
 */
import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import type { Results } from "./table.ts";

const GREY = "#808890";
const COLOURS: Readonly<Record<string, string>> = {
  freestanding: "#d9730d",
  hosted: "#c9a227",
  "C, glibc": "#3a86c8",
  "C, musl": "#4a9d6e",
};
const OTHERS = "#98a0a8";
const ON_COLOURS = "#14181c";

const config = {
  background: "transparent",
  view: { stroke: null },
  axis: { labelColor: GREY, titleColor: GREY, gridColor: `${GREY}40`, domainColor: GREY, tickColor: GREY },
  title: { color: GREY, subtitleColor: GREY, anchor: "start", frame: "group", offset: 18 },
  legend: { labelColor: GREY, titleColor: GREY },
  text: { color: GREY },
};

const draw = (spec: object): Promise<string> =>
  new View(parse(compile({ ...spec, config } as TopLevelSpec).spec), { renderer: "none" }).toSVG();

const colour = (names: readonly string[]) => ({
  field: "peer",
  type: "nominal",
  legend: null,
  scale: { domain: names, range: names.map((name) => COLOURS[name] ?? OTHERS) },
});

const quantity = (field: string, more: object = {}) => ({
  field,
  type: "quantitative",
  title: null,
  ...more,
});
const y = { field: "peer", type: "nominal", sort: null, title: null };
const WIDTH = 520;
const axes = { width: WIDTH, height: { step: 24 } };
const heading = (text: string, ...subtitle: readonly string[]) => ({ text, subtitle });

/** A value in writing, to the right of what is drawn up to there. */
const label = (at: string, dx: number, text = at, format = ".3r") => ({
  mark: { type: "text", align: "left", dx, color: GREY },
  encoding: { y, x: quantity(at), text: { field: text, format } },
});

/** The floor: a line through all that is drawn, and what it is. */
const floorLine = (value: number, unit: string) => [
  {
    data: { values: [{ value }] },
    mark: { type: "rule", color: GREY, strokeDash: [4, 3] },
    encoding: { x: quantity("value") },
  },
  {
    data: {
      values: [{ value, text: `floor: ${value.toPrecision(2)} ${unit}, a program that only pauses` }],
    },
    mark: { type: "text", align: "left", baseline: "bottom", dx: 2, dy: -2, color: GREY },
    encoding: { x: quantity("value"), y: { value: 0 }, text: { field: "text" } },
  },
];

/** The values of a measure by peer, and that of the floor. */
function split({ measures }: Results, measure: string) {
  const { floor, ...rest } = measures[measure] ?? {};
  const values = Object.entries(rest).map(([peer, values]) => ({ peer, ...values }));
  return { floor: floor?.median ?? 0, values, color: colour(values.map(({ peer }) => peer)) };
}

/** Memory: bars. Rounds differ by less than a picture can show, so it says by how much. */
function memory(results: Results): object {
  const { floor, values, color } = split(results, "memory total");
  const spread = values.map(({ low, median, high }) => Math.max(median - low, high - median) / median);
  const percent = Math.ceil(Math.max(...spread) * 100);
  return {
    title: heading(
      "Memory charged per pause process, KiB",
      `Medians of ${results.rounds} rounds of ${results.instances} processes.`,
      `Half of the rounds are within ${percent} % of them.`,
    ),
    ...axes,
    data: { values },
    layer: [
      { mark: "bar", encoding: { y, x: quantity("median"), color } },
      label("median", 4),
      ...floorLine(floor, "KiB"),
    ],
  };
}

/** Start: dots, because the length of a bar says nothing on a logarithmic axis. */
function start(results: Results): object {
  const { floor, values, color } = split(results, "ready");
  const least = Math.min(...values.map(({ low }) => low));
  const most = Math.max(...values.map(({ high }) => high));
  const scale = { type: "log", domain: [least / 1.3, most * 1.5], nice: false };
  const axis = { values: [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100] };
  return {
    title: heading(
      "Start, exec to ready, ms",
      "Dot: median. Line: the middle half of the starts.",
      "The axis is logarithmic.",
    ),
    ...axes,
    data: { values },
    layer: [
      {
        mark: { type: "errorbar", ticks: { size: 10 }, rule: { strokeWidth: 2 } },
        encoding: { y, x: quantity("low", { scale, axis }), x2: { field: "high" }, color },
      },
      {
        mark: { type: "point", filled: true, size: 70, opacity: 1 },
        encoding: { y, x: quantity("median"), color },
      },
      label("high", 8, "median"),
      ...floorLine(floor, "ms"),
    ],
  };
}

/** What the memory is: a stacked bar for each peer. */
function parts({ measures }: Results): object {
  const PARTS = ["stack", "other memory of its own", "page tables", "the kernel's structures and stack"];
  const RANGE = ["#d9730d", "#c9a227", "#3a86c8", OTHERS];
  const peers = ["floor", "freestanding", "C, musl", "hosted", "C, glibc", "catatonit -P"];
  const values = peers.flatMap((peer) => {
    const of = (part: string) => measures[`memory ${part}`]?.[peer]?.median ?? 0;
    const [stack, tables] = [of("stack"), of("page tables")];
    const sizes = [stack, of("anonymous") - stack, tables, of("kernel") - tables];
    return sizes.map((size, order) => ({ peer, part: PARTS[order], order, size }));
  });
  const color = {
    field: "part",
    type: "nominal",
    scale: { domain: PARTS, range: RANGE },
    legend: { title: null, orient: "bottom", labelLimit: 0, columns: 2 },
  };
  return {
    title: heading("What that memory is, KiB", "At the end of each bar: the total."),
    ...axes,
    data: { values },
    transform: [
      { stack: "size", groupby: ["peer"], sort: [{ field: "order" }], as: ["start", "end"] },
      { calculate: "(datum.start + datum.end) / 2", as: "middle" },
    ],
    layer: [
      { mark: "bar", encoding: { y, x: quantity("start"), x2: { field: "end" }, color } },
      {
        transform: [{ filter: "datum.size >= 6" }],
        mark: { type: "text", color: ON_COLOURS },
        encoding: { y, x: quantity("middle"), text: { field: "size", format: ".0f" } },
      },
      {
        transform: [{ aggregate: [{ op: "sum", field: "size", as: "total" }], groupby: ["peer"] }],
        ...label("total", 4, "total", ".0f"),
      },
    ],
  };
}

/** Bars for nodes of so many pods. */
function nodes({ scale }: Results): object {
  const names = Object.keys(scale);
  const values = Object.entries(scale).flatMap(([peer, points]) =>
    Object.entries(points).map(([pods, memory]) => ({ peer, pods: `${pods} pods`, memory })),
  );
  const legend = { title: null, orient: "bottom", gridAlign: "all", columnPadding: 24 };
  const position = {
    x: { field: "pods", type: "ordinal", sort: null, title: null, axis: { labelAngle: 0 } },
    xOffset: { field: "peer", sort: names },
    y: quantity("memory"),
  };
  return {
    title: "Memory of all pause processes of a node, MiB",
    width: WIDTH,
    height: 240,
    data: { values },
    layer: [
      { mark: "bar", encoding: { ...position, color: { ...colour(names), legend } } },
      {
        mark: { type: "text", dy: -6, color: GREY, fontSize: 10 },
        encoding: { ...position, text: { field: "memory", format: ".3r" } },
      },
    ],
  };
}

/** All of them, as SVG, by their names. */
export async function pictures(results: Results): Promise<Record<string, string>> {
  const specs = {
    memory: memory(results),
    start: start(results),
    parts: parts(results),
    scale: nodes(results),
  };
  const drawn: Record<string, string> = {};
  for (const [name, spec] of Object.entries(specs)) drawn[`${name}.svg`] = `${await draw(spec)}\n`;
  return drawn;
}
