// Plots of `bits`, `ranges` and `cost`: what weights are like and what they take.
import { COST_RATIOS } from "../results/paper.ts";
import type { Result, Row } from "../results/result.ts";
import type { Spec } from "./render_plot.ts";
import { FORMAT_SCALE, PANEL_WIDTH, PAPER_COLOUR, SCHEME } from "./theme.ts";

/** Columns of `bits` that are terms of the sum, lowest first. */
const FIRST_TERM = "codes";
const LAST_TERM = "outlierStarts";

/** Every term of one model's bits, and the sums of all models against the paper's. */
export function bitsPlot({ rows, columns, verdict }: Result): Spec {
  const keys = columns.map(({ key }) => key);
  const terms = columns.slice(keys.indexOf(FIRST_TERM), keys.indexOf(LAST_TERM) + 1);
  const model = rows[rows.length - 1].model;
  const own = rows.filter((row) => row.model === model);
  const parts = own.flatMap((row) =>
    terms.map(({ key, label }, order) => ({ layout: row.layout, term: label, order, bits: Number(row[key]) }))
      .filter(({ bits }) => bits > 0)
  );
  const paper = Number(verdict.paper);
  const used = terms.map(({ label }) => label).filter((label) => parts.some(({ term }) => term === label));
  return {
    vconcat: [
      {
        title: `Where the bits of a weight go (${model})`,
        width: PANEL_WIDTH,
        height: { step: 30 },
        layer: [
          {
            data: { values: parts },
            mark: "bar",
            encoding: {
              x: { field: "bits", type: "quantitative", title: "bits a weight", scale: { domainMax: 3 } },
              y: { field: "layout", type: "nominal", sort: null, title: null },
              color: { field: "term", type: "nominal", sort: used, title: null },
              order: { field: "order", type: "quantitative" },
            },
          },
          verticalRule(paper, `paper: ${paper}`),
        ],
      },
      sumsPanel(rows, paper),
    ],
    resolve: { scale: { color: "independent", shape: "independent" } },
    spacing: 32,
  };
}

function sumsPanel(rows: Result["rows"], paper: number): Spec {
  const ours = (layout: unknown) => Number(String(layout).startsWith("twobit"));
  const layouts = [...new Set(rows.map(({ layout }) => layout))].sort((a, b) => ours(b) - ours(a));
  const sums = rows.map(({ model, layout, bits_per_weight: bits }) => ({ model, layout, bits }));
  return {
    title: "All scales and zeros counted, by model",
    width: PANEL_WIDTH,
    height: { step: 18 },
    layer: [
      {
        data: { values: sums },
        mark: { type: "point" },
        encoding: {
          x: { field: "bits", type: "quantitative", title: "bits a weight", scale: { zero: false } },
          y: { field: "model", type: "nominal", sort: null, title: null, axis: { grid: true } },
          color: { field: "layout", type: "nominal", sort: layouts, title: null },
          shape: { field: "layout", type: "nominal", sort: layouts, title: null },
        },
      },
      verticalRule(paper, `paper: ${paper}`, { align: "right" }),
    ],
  };
}

/** Histogram of all groups' ranges, and the share of the total range that the smallest groups hold. */
export function rangesPlot({ samples = {} }: Result): Spec {
  const { histogram_all: histogram, lorenz_all: lorenz } = samples;
  return {
    vconcat: [...(histogram ? [histogramPanel(histogram)] : []), ...(lorenz ? [lorenzPanel(lorenz)] : [])],
    spacing: 32,
  };
}

function histogramPanel([width, ...shares]: readonly number[]): Spec {
  return {
    title: "How much the range of weights differs from group to group",
    width: PANEL_WIDTH,
    height: 220,
    data: { values: shares.map((share, i) => ({ from: i * width, to: (i + 1) * width, percent: 100 * share })) },
    mark: { type: "bar", binSpacing: 0 },
    encoding: {
      x: { field: "from", type: "quantitative", bin: "binned", title: "range of a group (x median)" },
      x2: { field: "to" },
      y: {
        field: "percent",
        type: "quantitative",
        title: "groups (%), logarithmic",
        scale: { type: "symlog", constant: 0.001 },
        axis: { values: [0.001, 0.01, 0.1, 1, 10], format: "~g" },
      },
    },
  };
}

function lorenzPanel(curve: readonly number[]): Spec {
  const percent = (field: string, title: string) => ({ field, type: "quantitative", title });
  const groups = percent("groups", "groups, smallest range first (%); dashed: all ranges equal");
  return {
    title: "Share of all range held by the groups with the smallest ranges",
    width: PANEL_WIDTH,
    height: 220,
    data: { values: curve.map((held, i) => ({ groups: (100 * i) / (curve.length - 1), held: 100 * held })) },
    encoding: { x: groups },
    layer: [
      {
        mark: { type: "line", color: SCHEME.line[0], strokeDash: [5, 4], strokeWidth: 1 },
        encoding: { y: percent("groups", "range held (%)") },
      },
      { mark: "line", encoding: { y: percent("held", "") } },
    ],
  };
}

/** Memory of each model, and how much less it costs on each kind of GPU. */
export function costPlot({ rows }: Result): Spec {
  const packed = rows.filter(({ format }) => format !== "f16");
  return {
    vconcat: [
      // Memory doesn't depend on the GPU.
      memoryPanel(rows.filter(({ gpu }) => gpu === rows[0].gpu)),
      ratioPanel(packed, "hardware_ratio", "GPUs that f16 needs over those that twobit needs", COST_RATIOS.hardware),
      ratioPanel(packed, "cost_ratio", "GPU-seconds a token of f16 over those of twobit", COST_RATIOS.runtime),
    ],
    resolve: { scale: { color: "independent" } },
    spacing: 32,
  };
}

function memoryPanel(rows: readonly Row[]): Spec {
  const values = rows.map(({ model, format, memory_bytes: bytes }) => ({
    model,
    format,
    gigabytes: Number(bytes) / 1e9,
  }));
  return {
    title: "Memory for weights and key-value cache",
    data: { values },
    width: PANEL_WIDTH,
    height: { step: 14 },
    mark: "bar",
    encoding: {
      x: { field: "gigabytes", type: "quantitative", title: "GB" },
      y: { field: "model", type: "nominal", sort: null, title: null },
      yOffset: { field: "format", type: "nominal", sort: null },
      color: { field: "format", type: "nominal", title: null, scale: FORMAT_SCALE },
    },
  };
}

/** How much less the packed model costs, with the paper's largest value; ratios that weren't measured are left out. */
function ratioPanel(rows: readonly Row[], field: string, title: string, claimed: number): Spec {
  return {
    title,
    width: PANEL_WIDTH,
    height: { step: 22 },
    layer: [
      {
        data: { values: rows.filter((row) => typeof row[field] === "number") },
        mark: "point",
        encoding: {
          x: { field, type: "quantitative", title: "x" },
          y: { field: "model", type: "nominal", sort: null, title: null, axis: { grid: true } },
          yOffset: { field: "gpu", type: "nominal", sort: null },
          color: { field: "gpu", type: "nominal", sort: null, title: null },
        },
      },
      verticalRule(claimed, `paper: up to ${claimed}`),
    ],
  };
}

/** The paper's value on the x axis, with its meaning above the panel. */
export function verticalRule(
  value: number,
  text: string,
  { align = "left" }: { readonly align?: "left" | "right" } = {},
): Spec {
  return {
    data: { values: [{ value, text }] },
    encoding: { x: { field: "value", type: "quantitative" } },
    layer: [
      { mark: { type: "rule", color: PAPER_COLOUR, strokeDash: [5, 4] } },
      {
        mark: { type: "text", color: PAPER_COLOUR, align, baseline: "bottom", dx: align === "left" ? 3 : -3, dy: -2 },
        encoding: { y: { value: 0 }, text: { field: "text" } },
      },
    ],
  };
}
