/**
 * The pictures of bench/results.json: bars and lines, as SVG without a background, in colours that can be read on
 * light and on dark.
 */
import { join } from "node:path";
import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import { quantile, type Results } from "./table.ts";

const GREY = "#808890";
const COLOURS = ["#d9730d", "#3a86c8"] as const;

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

/** Bars of one measure with the middle half of its values. */
function bars(results: Results, measure: string, title: string): object {
  const values = Object.entries(results.samples).map(([program, samples]) => {
    const [low, middle, high] = [0.25, 0.5, 0.75].map((part) => quantile(samples[measure] ?? [], part));
    return { program, low, middle, high, ours: program === "pause (this)" };
  });
  const y = { field: "program", type: "nominal", sort: null, title: null };
  return {
    title,
    width: 520,
    data: { values },
    layer: [
      {
        mark: "bar",
        encoding: {
          y,
          x: { field: "middle", type: "quantitative", title: null },
          color: {
            field: "ours",
            type: "nominal",
            legend: null,
            scale: { domain: [true, false], range: COLOURS },
          },
        },
      },
      {
        mark: { type: "rule", color: GREY, strokeWidth: 2 },
        encoding: { y, x: { field: "low", type: "quantitative" }, x2: { field: "high" } },
      },
      {
        mark: { type: "text", align: "left", dx: 6 },
        encoding: { y, x: { field: "high", type: "quantitative" }, text: { field: "middle", format: ".1f" } },
      },
    ],
  };
}

/** Draws all of them. */
export async function pictures(results: Results): Promise<void> {
  await draw(
    "memory",
    bars(results, "memory total", `Memory charged per pod, KiB (${results.instances} at a time)`),
  );
  await draw("start", bars(results, "ready", "exec to ready, ms"));
  const values = Object.entries(results.scale).flatMap(([program, points]) =>
    points.map((point) => ({ program, ...point })),
  );
  await draw("scale", {
    title: "Memory charged, MiB, against the number of pods",
    width: 520,
    height: 260,
    data: { values },
    mark: { type: "line", point: true },
    encoding: {
      x: { field: "count", type: "quantitative", title: "pods" },
      y: { field: "memory", type: "quantitative", title: "MiB" },
      color: {
        field: "program",
        type: "nominal",
        title: null,
        scale: { domain: Object.keys(results.scale), range: COLOURS },
      },
    },
  });
}
