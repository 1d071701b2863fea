/**
 * Plots of `dequant_share`, `async` and `end_to_end`: where time goes and how much is saved.
 *
 * @module
 */
import type { Result } from "../result.ts";
import type { Spec } from "./render_plot.ts";
import { verticalRule } from "./storage.ts";
import { FORMATS, PANEL_WIDTH, PAPER_COLOUR, SERIES } from "./theme.ts";

/** Steps of a product in the order of the paper's figure, with their names there. */
const STEPS: Readonly<Record<string, string>> = {
  first_order: "1st-order dequantization",
  second_order: "2nd-order dequantization",
  multiply: "multiplication",
  load: "load, store, other",
};

/** Time of each kernel by step, below the paper's own split. */
export function dequantSharePlot({ rows }: Result): Spec {
  const paper = rows.filter(({ variant, shape }) => variant === rows[0].variant && shape === rows[0].shape);
  const named = paper.reduce((sum, { paper_share: share }) => sum + Number(share ?? 0), 0);
  const values = [
    // What the paper doesn't name, its "other", stands beside our load and store.
    ...paper.map(({ step, paper_share: share }) => ({
      variant: "paper",
      shape: "its kernel",
      step,
      share: share ?? 1 - named,
    })),
    ...rows.map(({ variant, shape, step, share }) => ({ variant, shape, step, share })),
  ].map((row) => ({
    ...row,
    percent: 100 * Number(row.share),
    name: STEPS[String(row.step)] ?? row.step,
    order: Object.keys(STEPS).indexOf(String(row.step)),
  }));
  return {
    title: "Where the time of a product goes",
    data: { values },
    facet: {
      row: {
        field: "variant",
        type: "nominal",
        sort: [...new Set(values.map(({ variant }) => variant))],
        title: null,
        header: { labelAngle: 0, labelAlign: "left", labelOrient: "top", labelAnchor: "start" },
      },
    },
    resolve: { scale: { y: "independent" } },
    spec: {
      width: PANEL_WIDTH - 40,
      height: { step: 20 },
      mark: "bar",
      encoding: {
        x: {
          field: "percent",
          type: "quantitative",
          title: "share of the kernel's time (%); below 0: noise of differences",
          scale: { nice: false },
        },
        y: { field: "shape", type: "nominal", sort: null, title: null },
        color: {
          field: "name",
          type: "nominal",
          title: null,
          scale: { domain: Object.values(STEPS), range: [SERIES[1], SERIES[4], SERIES[0], SERIES[5]] },
        },
        order: { field: "order", type: "quantitative" },
      },
    },
  };
}

const CLAIMED_SPEEDUP = 3.92;

/** Speed-up over two_pass of each shape, and how much of the memory's bandwidth each kernel reaches. */
export function asyncPlot({ rows }: Result): Spec {
  const values = rows.filter(({ variant }) => variant !== "fused_async_and_pack").map((row) => {
    const [height, width] = String(row.shape).split("x").map(Number);
    return {
      ...row,
      name: `${row.model}  ${row.layer}  ${row.shape}`,
      weights: height * width,
      percent: 100 * Number(row.bandwidth_fraction),
    };
  });
  const variants = ["fused_async", "fused_async_outliers", "fused_sync", "f16", "two_pass"];
  const color = {
    field: "variant",
    type: "nominal",
    title: null,
    scale: { domain: variants, range: SERIES.slice(0, variants.length) },
  };
  return {
    data: { values },
    vconcat: [
      {
        title: "Speed-up over the two-pass product, by shape",
        width: PANEL_WIDTH - 120,
        height: { step: 20 },
        layer: [
          {
            mark: "point",
            encoding: {
              x: {
                field: "speedup_vs_two_pass",
                type: "quantitative",
                title: "speed over two_pass's (x)",
                scale: { nice: false },
              },
              y: { field: "name", type: "nominal", sort: null, title: null, axis: { grid: true } },
              color,
            },
          },
          verticalRule(CLAIMED_SPEEDUP, `paper: up to ${CLAIMED_SPEEDUP}`),
        ],
      },
      {
        title: "Fraction of the memory's bandwidth, by size of the matrix",
        width: PANEL_WIDTH - 120,
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
          y: {
            field: "percent",
            type: "quantitative",
            title: "of the measured read bandwidth (%)",
            scale: { domain: [0, 100] },
          },
          color,
        },
      },
    ],
    spacing: 32,
  };
}

/** The paper's speed-up of a whole model. */
const CLAIMED_END_TO_END = 1.74;

/** Decode speed against context, a panel for each model; the paper's claim is a line above f16's. */
export function endToEndPlot({ rows }: Result): Spec {
  const measured = rows.map(({ model, format, context, decode_tokens_per_s: speed }) => ({
    model,
    format,
    context,
    speed: Number(speed),
  }));
  const claimed = measured.filter(({ format }) => format === "f16").map((row) => ({
    ...row,
    speed: CLAIMED_END_TO_END * row.speed,
  }));
  const models = [...new Set(measured.map(({ model }) => model))];
  const position = {
    x: {
      field: "context",
      type: "quantitative",
      title: "context (tokens)",
      scale: { type: "log", base: 2, nice: false },
    },
    y: { field: "speed", type: "quantitative", title: "decoded tokens/s" },
  };
  return {
    vconcat: models.map((model) => ({
      title: `Decode speed, ${model}`,
      width: PANEL_WIDTH,
      height: 220,
      layer: [
        {
          data: { values: measured.filter((row) => row.model === model) },
          mark: { type: "line", point: true },
          encoding: {
            ...position,
            color: {
              field: "format",
              type: "nominal",
              title: null,
              scale: FORMATS,
            },
          },
        },
        {
          data: { values: claimed.filter((row) => row.model === model) },
          mark: { type: "line", color: PAPER_COLOUR, strokeDash: [5, 4] },
          encoding: position,
        },
        {
          data: { values: claimed.filter((row) => row.model === model).slice(-1) },
          mark: { type: "text", color: PAPER_COLOUR, align: "right", dy: -16 },
          encoding: { ...position, text: { value: `paper: ${CLAIMED_END_TO_END} x f16` } },
        },
      ],
    })),
    spacing: 32,
  };
}
