// Plots of `dequant_share`, `async`, `end_to_end` and `throughput`: where time goes and how much is saved.
import { ASYNC_SPEEDUP, END_TO_END_SPEEDUP } from "../results/paper.ts";
import type { Cell, Result, Row } from "../results/result.ts";
import type { Spec } from "./render_plot.ts";
import { verticalRule } from "./storage.ts";
import { FORMAT_SCALE, PANEL_HEADER, PANEL_WIDTH, PAPER_COLOUR, SERIES } from "./theme.ts";

/** Steps of a product in the order of the paper's figure, with their names there. */
const STEPS: Readonly<Record<string, string>> = {
  first_order: "1st-order dequantization",
  second_order: "2nd-order dequantization",
  multiply: "multiplication",
  load: "load, store",
  other: "other",
};

/** Time of each kernel by step, below the paper's own split. */
export function dequantSharePlot(result: Result): Spec {
  // A pipeline's sequence is what the shares are of, and has none itself.
  const rows = result.rows.filter(({ share }) => share !== null);
  const values = [...paperShares(rows), ...rows].map(({ variant, shape, step, share }) => ({
    variant,
    shape,
    percent: 100 * Number(share),
    name: STEPS[String(step)] ?? step,
    order: Object.keys(STEPS).indexOf(String(step)),
  }));
  const variants = [...new Set(values.map(({ variant }) => variant))];
  const title = "share of the kernel's time (%)";
  return {
    title: "Where the time of a product goes",
    data: { values },
    facet: {
      row: {
        field: "variant",
        type: "nominal",
        sort: variants,
        title: null,
        header: PANEL_HEADER,
      },
    },
    resolve: { scale: { y: "independent" } },
    spec: {
      width: PANEL_WIDTH - 40,
      height: { step: 20 },
      mark: "bar",
      encoding: {
        x: { field: "percent", type: "quantitative", title, scale: { nice: false } },
        y: { field: "shape", type: "nominal", sort: null, title: null },
        color: { field: "name", type: "nominal", title: null, scale: STEP_COLOURS },
        order: { field: "order", type: "quantitative" },
      },
    },
  };
}

const STEP_COLOURS = { domain: Object.values(STEPS), range: [SERIES[1], SERIES[4], SERIES[0], SERIES[5], SERIES[6]] };

/** The paper's shares as rows; what it doesn't name stands where we have load and store. */
function paperShares(rows: readonly Row[]): Row[] {
  const first = rows.filter(({ variant, shape }) => variant === rows[0].variant && shape === rows[0].shape);
  const named = first.reduce((sum, { paper_share: share }) => sum + Number(share ?? 0), 0);
  return first.map(({ step, paper_share: share }) => ({
    variant: "paper",
    shape: "its kernel",
    step,
    share: share ?? 1 - named,
  }));
}

/** Kernels of `async`, best first; what also packs its activations or is tried out is left to the table. */
const VARIANTS = ["fused_async", "fused_async_outliers", "fused_sync", "f16", "two_pass", "three_kernels"];
/** Names of shapes take some of the width. */
const SHAPES_WIDTH = PANEL_WIDTH - 120;

/** Speed-up over two_pass of each shape, and how much of the memory's bandwidth each kernel reaches. */
export function asyncPlot({ rows }: Result, peers?: Result): Spec {
  const own = rows.filter(({ variant }) => VARIANTS.includes(String(variant))).map((row) => {
    const [height, width] = String(row.shape).split("x").map(Number);
    return {
      variant: row.variant,
      name: `${row.model}  ${row.layer}  ${row.shape}`,
      speedup: row.speedup_vs_two_pass,
      weights: height * width,
      percent: 100 * Number(row.bandwidth_fraction),
    };
  });
  const others = rows.filter(({ variant }) => variant === "two_pass").flatMap((row) =>
    (peers?.rows ?? []).filter(({ shape }) => shape === row.shape).map((peer) => ({
      variant: nameOfPeer(peer),
      name: `${row.model}  ${row.layer}  ${row.shape}`,
      speedup: Number(row.time_us) / Number(peer.time_us),
    }))
  );
  const values = [...own, ...others];
  const scale = withOthers(VARIANTS, SERIES.slice(0, VARIANTS.length), values.map(({ variant }) => String(variant)));
  const color = { field: "variant", type: "nominal", title: null, scale };
  return { vconcat: [speedupPanel(values, color), bandwidthPanel(own, color)], spacing: 32 };
}

/** Another program's series, which says that it is one. */
function nameOfPeer({ program, format }: Row): string {
  return `${program} ${format}, another run`;
}

/** A colour scale with what else is drawn behind its own series. */
function withOthers(domain: readonly string[], colours: readonly string[], drawn: readonly string[]) {
  const others = [...new Set(drawn)].filter((name) => !domain.includes(name));
  const free = SERIES.filter((colour) => !colours.includes(colour));
  return { domain: [...domain, ...others], range: [...colours, ...others.map((_, i) => free[i % free.length])] };
}

function speedupPanel(values: readonly unknown[], color: Spec): Spec {
  return {
    data: { values },
    title: "Speed-up over the two-pass product, by shape",
    width: SHAPES_WIDTH,
    height: { step: 20 },
    layer: [
      {
        mark: "point",
        encoding: {
          x: { field: "speedup", type: "quantitative", title: "speed over two_pass's (x)", scale: { nice: false } },
          y: { field: "name", type: "nominal", sort: null, title: null, axis: { grid: true } },
          color,
        },
      },
      verticalRule(ASYNC_SPEEDUP, `paper: up to ${ASYNC_SPEEDUP}`),
    ],
  };
}

function bandwidthPanel(values: readonly unknown[], color: Spec): Spec {
  return {
    data: { values },
    title: "Fraction of the memory's bandwidth, by size of the matrix",
    width: SHAPES_WIDTH,
    height: 260,
    mark: { type: "line", point: true },
    encoding: {
      x: {
        field: "weights",
        type: "quantitative",
        title: "weights of the matrix",
        scale: { type: "log", nice: false },
        axis: { format: "~s", labelSeparation: 8 },
      },
      y: { field: "percent", type: "quantitative", title: "of the measured read bandwidth (%)" },
      color,
    },
  };
}

/** Decode speed against context, a panel for each model; the paper's claim is a line above f16's. */
export function endToEndPlot({ rows }: Result, peers?: Result): Spec {
  const point = (row: Row, format: string): Point => {
    return { model: row.model, format, context: row.context, speed: Number(row.decode_tokens_per_s) };
  };
  // A model that doesn't fit on the device has a row without numbers, and other programs have rows of prompts.
  const hasSpeed = (row: Row) => typeof row.decode_tokens_per_s === "number";
  const own = rows.filter(hasSpeed).map((row) => point(row, String(row.format)));
  const others = peers?.rows.filter(hasSpeed).map((row) => point(row, nameOfPeer(row))) ?? [];
  const points = [...own, ...others];
  const scale = withOthers(FORMAT_SCALE.domain, FORMAT_SCALE.range, points.map(({ format }) => format));
  const color = { field: "format", type: "nominal", title: null, scale };
  return {
    vconcat: [...new Set(own.map(({ model }) => model))].map((model) =>
      decodePanel(String(model), points.filter((each) => each.model === model), color)
    ),
    spacing: 32,
  };
}

interface Point {
  readonly model: Cell;
  readonly format: string;
  readonly context: Cell;
  readonly speed: number;
}

function decodePanel(model: string, points: readonly Point[], color: Spec): Spec {
  const claimed = points.filter(({ format }) => format === "f16")
    .map(({ context, speed }) => ({ context, speed: END_TO_END_SPEEDUP * speed }));
  const contexts = { type: "log", base: 2, nice: false };
  const position = {
    x: { field: "context", type: "quantitative", title: "context (tokens)", scale: contexts },
    y: { field: "speed", type: "quantitative", title: "decoded tokens/s" },
  };
  return {
    title: `Decode speed, ${model}`,
    width: PANEL_WIDTH,
    height: 220,
    layer: [
      {
        data: { values: points },
        mark: { type: "line", point: true },
        encoding: { ...position, color },
      },
      // Where f16 doesn't fit there is nothing to multiply.
      ...(claimed.length > 0 ? claimLayers(claimed, position) : []),
    ],
  };
}

function claimLayers(claimed: readonly { readonly speed: number }[], position: Spec): Spec[] {
  return [
    {
      data: { values: claimed },
      mark: { type: "line", color: PAPER_COLOUR, strokeDash: [5, 4] },
      encoding: position,
    },
    {
      data: { values: claimed.slice(-1) },
      mark: { type: "text", color: PAPER_COLOUR, align: "right", dy: 14 },
      encoding: { ...position, text: { value: `paper: ${END_TO_END_SPEEDUP} x f16` } },
    },
  ];
}

const WEBGPU_COLOURS = { domain: ["Deno", "Dawn"], range: [SERIES[5], SERIES[0]] };

/** Speed of each job on either WebGPU, a panel for each format. */
export function throughputPlot({ rows }: Result): Spec {
  const values = rows.filter(({ tokens_per_s: speed }) => speed !== null);
  return {
    title: "Many tokens at once",
    data: { values },
    facet: { row: { field: "format", type: "nominal", title: null, header: PANEL_HEADER } },
    resolve: { scale: { y: "independent" } },
    spec: {
      width: PANEL_WIDTH - 40,
      height: { step: 14 },
      mark: "bar",
      encoding: {
        x: { field: "tokens_per_s", type: "quantitative", title: "tokens/s" },
        y: { field: "job", type: "nominal", sort: null, title: null },
        yOffset: { field: "webgpu", type: "nominal", sort: WEBGPU_COLOURS.domain },
        color: { field: "webgpu", type: "nominal", title: null, scale: WEBGPU_COLOURS },
      },
    },
  };
}
