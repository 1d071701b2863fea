// The table of `async`, and how the claim is judged by it.
import { type Estimate, median } from "../model/host/statistics.ts";
import { type Ceiling, fractionOfRead, type LayerShape } from "./kernel_bench.ts";
import { describeNear, describeNoise, formatEstimate, statusOfAtLeast, statusOfParts } from "./results/judge.ts";
import { ASYNC_SPEEDUP } from "./results/paper.ts";
import { type Column, estimateCells, estimateColumns, estimateOf, type Row, type Verdict } from "./results/result.ts";
import { countSlow, estimate, type Samples } from "./timed_variants.ts";

/** The product's share of a mainstream kernel's time, in the paper's own split. */
const PAPER_PRODUCT_SHARE = 0.434;
const VARIANTS = [
  "two_pass",
  "three_kernels",
  "f16",
  "fused_sync",
  "fused_async",
  "fused_async_norm",
  "fused_async_outliers",
] as const;
export type Variant = typeof VARIANTS[number];

export interface Measured {
  readonly samples: Samples<Variant>;
  /** Bytes that have to be read and written at least. */
  readonly bytes: Readonly<Record<Variant, number>>;
}

/** Columns of speed-ups, with what they are over. */
const BASELINES = {
  speedup_vs_two_pass: "two_pass",
  speedup_vs_three_kernels: "three_kernels",
  speedup_vs_sync: "fused_sync",
  speedup_vs_f16: "f16",
} as const;

export const COLUMNS: readonly Column[] = [
  { key: "model", label: "model", unit: "" },
  { key: "layer", label: "layer", unit: "" },
  { key: "shape", label: "rows x channels", unit: "" },
  { key: "variant", label: "kernel", unit: "" },
  { key: "time_us", label: "time, median", unit: "us", timed: true },
  { key: "time_min_us", label: "least", unit: "us", timed: true },
  { key: "time_max_us", label: "most", unit: "us", timed: true },
  { key: "slow_samples", label: "slow samples", unit: "", timed: true },
  ...Object.entries(BASELINES).flatMap(([key, variant]) =>
    estimateColumns({ key, label: `against ${variant}`, unit: "x", timed: true })
  ),
  ...estimateColumns(
    { key: "outlier_cost", label: "outliers cost", unit: "% of the time", timed: true },
    { unit: "%" },
  ),
  { key: "bytes", label: "bytes to move", unit: "bytes" },
  ...estimateColumns({ key: "bandwidth_fraction", label: "of read bandwidth", unit: "share", timed: true }),
  { key: "note", label: "note", unit: "", timed: true },
];

/** The long read as a row: it has no shape, and nothing to be faster than. */
export function describeRead({ timing, sizeBytes }: Ceiling): Row {
  return {
    ...EMPTY_ROW,
    variant: "read_memory",
    time_us: timing.medianUs,
    time_min_us: timing.minUs,
    time_max_us: timing.maxUs,
    bytes: sizeBytes,
    bandwidth_fraction: 1,
  };
}

const EMPTY_ROW: Row = Object.fromEntries(COLUMNS.map(({ key }) => [key, null]));

/** Rows of a shape; without a ceiling fractions of it are left out. */
export function describe(shape: LayerShape, { samples, bytes }: Measured, ceiling?: Ceiling): Row[] {
  return VARIANTS.map((variant) => {
    const timesUs = samples[variant];
    const timeUs = median(timesUs);
    const speedups = Object.entries(BASELINES).map(([key, baseline]) =>
      estimateCells(key, estimate(samples, (t) => t[baseline] / t[variant]))
    );
    const cost = variant.includes("outliers")
      ? estimate(samples, (t) => 100 * (t[variant] / t.fused_async - 1))
      : undefined;
    return {
      ...EMPTY_ROW,
      model: shape.model,
      layer: shape.layer,
      shape: `${shape.rows}x${shape.channels}`,
      variant,
      time_us: timeUs,
      time_min_us: Math.min(...timesUs),
      time_max_us: Math.max(...timesUs),
      slow_samples: countSlow(timesUs),
      ...Object.assign({}, ...speedups),
      ...(cost && estimateCells("outlier_cost", cost)),
      bytes: bytes[variant],
      ...(ceiling && estimateCells("bandwidth_fraction", fractionOfRead(bytes[variant], timesUs, ceiling))),
      note: cost ? describeNoise(cost, "% of the time") : null,
    };
  });
}

/** The fused kernel's speed-ups over a baseline: the best, and the geometric mean over shapes. */
function summarize(rows: readonly Row[], key: string): { readonly best: Estimate; readonly mean: Estimate } {
  const speedups = rows.filter(({ variant }) => variant === "fused_async").map((row) => estimateOf(row, key));
  const best = speedups.reduce((a, b) => a.value >= b.value ? a : b);
  const value = Math.exp(speedups.reduce((sum, each) => sum + Math.log(each.value), 0) / speedups.length);
  const relative = Math.hypot(...speedups.map((each) => each.standardError / each.value)) / speedups.length;
  return { best, mean: { value, standardError: relative * value } };
}

/** Judges asynchrony by the same kernel in order; the pipelines are what the paper more likely means. */
export function judgeAsync(rows: readonly Row[]): Verdict {
  const alone = summarize(rows, "speedup_vs_sync");
  const pipeline = summarize(rows, "speedup_vs_three_kernels");
  const all = Object.entries(BASELINES).map(([key, variant]) => {
    const { best, mean } = summarize(rows, key);
    return `${formatEstimate(best)} (${formatEstimate(mean)}) over ${variant}`;
  });
  return {
    paper: ASYNC_SPEEDUP,
    unit: "x on the best shape, over the same kernel in order and over the three-kernel pipeline",
    measured: `${formatEstimate(alone.best)} (in order), ${formatEstimate(pipeline.best)} (three kernels)`,
    status: statusOfParts([alone, pipeline].map(({ best }) => statusOfAtLeast(best, ASYNC_SPEEDUP))),
    note: `Best shape, and in brackets the geometric mean over shapes: ${all.join(", ")}. Reproduced means ` +
      `more than ${ASYNC_SPEEDUP}x by asynchrony alone, by more than the error; partly, over the pipeline alone or within ` +
      `the error.${describeNear("Asynchrony alone", alone.best, ASYNC_SPEEDUP)}` +
      `${describeNear("The pipeline", pipeline.best, ASYNC_SPEEDUP)} The paper most likely means a pipeline: by its ` +
      `own split the product is ${PAPER_PRODUCT_SHARE} of such a kernel's time, so hiding all else makes it at most ` +
      `${(1 / PAPER_PRODUCT_SHARE).toFixed(2)} times as fast, unless weights no longer go through memory either.`,
  };
}
