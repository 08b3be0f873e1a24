/**
 * The pictures of bench/results.json, as SVG without a background, in colours that can be read on light and on dark.
 * `bun bench/pictures.ts` draws them again.
 */
import { join } from "node:path";
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

const config = {
  background: "transparent",
  view: { stroke: null },
  axis: { labelColor: GREY, titleColor: GREY, gridColor: `${GREY}40`, domainColor: GREY, tickColor: GREY },
  title: { color: GREY },
  legend: { labelColor: GREY, titleColor: GREY },
  text: { color: GREY },
};

async function draw(name: string, spec: object): Promise<void> {
  const { spec: vega } = compile({ ...spec, config } as TopLevelSpec);
  await Bun.write(
    join(import.meta.dir, `${name}.svg`),
    await new View(parse(vega), { renderer: "none" }).toSVG(),
  );
}

const colour = (names: readonly string[]) => ({
  field: "peer",
  type: "nominal",
  legend: null,
  scale: { domain: names, range: names.map((name) => COLOURS[name] ?? OTHERS) },
});

/** Bars of one measure with the middle half of its values; the floor is a line through all of them. */
function bars({ measures }: Results, measure: string, title: string, logarithmic: boolean): object {
  const { floor, ...rest } = measures[measure] ?? {};
  const values = Object.entries(rest).map(([peer, values]) => ({ peer, ...values }));
  const names = values.map(({ peer }) => peer);
  const least = Math.min(...[...values.map(({ low }) => low), floor?.low ?? 1]);
  const from = logarithmic ? 10 ** Math.floor(Math.log10(least)) : 0;
  const scale = { ...(logarithmic ? { type: "log" } : {}), domainMin: from, nice: true };
  const y = { field: "peer", type: "nominal", sort: null, title: null };
  return {
    title,
    width: 520,
    height: { step: 24 },
    data: { values },
    layer: [
      {
        mark: "bar",
        encoding: {
          y,
          x: { field: "median", type: "quantitative", title: null, scale },
          x2: { datum: from },
          color: colour(names),
        },
      },
      {
        mark: { type: "rule", color: GREY, strokeWidth: 2 },
        encoding: { y, x: { field: "low", type: "quantitative" }, x2: { field: "high" } },
      },
      {
        mark: { type: "text", align: "left", dx: 6, color: GREY },
        encoding: {
          y,
          x: { field: "high", type: "quantitative" },
          text: { field: "median", format: ".3~r" },
        },
      },
      ...(floor === undefined
        ? []
        : [
            {
              data: { values: [{ median: floor.median, text: "the kernel's floor" }] },
              mark: { type: "rule", color: GREY, strokeDash: [4, 3] },
              encoding: { x: { field: "median", type: "quantitative" } },
            },
            {
              data: {
                values: [
                  { median: floor.median, text: `the kernel's floor, ${floor.median.toPrecision(2)}` },
                ],
              },
              mark: { type: "text", align: "left", baseline: "bottom", dx: 2, dy: -2, color: GREY },
              encoding: {
                x: { field: "median", type: "quantitative" },
                y: { value: 0 },
                text: { field: "text" },
              },
            },
          ]),
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
    const sizes = [
      of("stack"),
      of("anonymous") - of("stack"),
      of("page tables"),
      of("kernel") - of("page tables"),
    ];
    return sizes.map((size, order) => ({ peer, part: PARTS[order], order, size }));
  });
  return {
    title: "What the memory charged per pod is, KiB",
    width: 520,
    height: { step: 24 },
    data: { values },
    transform: [
      { stack: "size", groupby: ["peer"], sort: [{ field: "order" }], as: ["start", "end"] },
      { calculate: "(datum.start + datum.end) / 2", as: "middle" },
    ],
    layer: [
      {
        mark: "bar",
        encoding: {
          y: { field: "peer", type: "nominal", sort: null, title: null },
          x: { field: "start", type: "quantitative", title: null },
          x2: { field: "end" },
          color: {
            field: "part",
            type: "nominal",
            scale: { domain: PARTS, range: RANGE },
            legend: { title: null, orient: "bottom", labelLimit: 0, columns: 2 },
          },
        },
      },
      {
        transform: [{ filter: "datum.size >= 6" }],
        mark: { type: "text", color: "white" },
        encoding: {
          y: { field: "peer", type: "nominal", sort: null },
          x: { field: "middle", type: "quantitative" },
          text: { field: "size", format: ".0f" },
        },
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
  const position = {
    x: { field: "pods", type: "ordinal", sort: null, title: null, axis: { labelAngle: 0 } },
    xOffset: { field: "peer", sort: names },
    y: { field: "memory", type: "quantitative", title: "MiB" },
  };
  return {
    title: "Memory of all pause containers of a node, MiB",
    width: 520,
    height: 240,
    data: { values },
    layer: [
      {
        mark: "bar",
        encoding: {
          ...position,
          color: { ...colour(names), legend: { title: null, orient: "bottom" } },
        },
      },
      {
        mark: { type: "text", dy: -6, color: GREY, fontSize: 10 },
        encoding: { ...position, text: { field: "memory", format: ".3~r" } },
      },
    ],
  };
}

/** Draws all of them. */
export async function pictures(results: Results): Promise<void> {
  await draw("memory", bars(results, "memory total", "Memory charged per pod, KiB", false));
  await draw("start", bars(results, "ready", "Start, exec to ready, ms (logarithmic)", true));
  await draw("parts", parts(results));
  await draw("scale", nodes(results));
}

if (import.meta.main) await pictures(await Bun.file(join(import.meta.dir, "results.json")).json());
