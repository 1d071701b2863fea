// Claim `ranges`: the range of weights differs much from group to group, and only a small fraction is large.
import { GROUP_CHANNELS } from "../quant/format.ts";
import { groupOfRow, rangeOf } from "../quant/probe.ts";
import { LINEAR_KINDS, type LinearKind } from "../model/llama/layer.ts";
import type { Layer } from "../model/llama/llama.ts";
import type { Experiment } from "./experiment.ts";
import type { Row } from "./results/result.ts";

/** A group counts as large above this many times the median range of its matrices. */
const LARGE = 2;

/** The claim holds when at most this share of groups is large, and the largest exceeds the median by {@linkcode SPREAD}. */
const SMALL_SHARE = 0.1;
const SPREAD = 3;

/** Width of the histogram's bins, in medians. */
const BIN = 0.1;

export const ranges: Experiment = {
  id: "ranges",
  title: "Ranges of weight groups",
  claim: "The range of weights differs much from group to group; only a small fraction of groups has a large range.",
  differs:
    "The paper gives no limits; ours are at most a tenth of the groups above 2 x median, and the largest above " +
    "3 x. Counted: no error.",
  needsGpu: false,
  needsModel: true,
  async run({ model, progress }) {
    const { model: { layers } } = await model();
    const perKind = LINEAR_KINDS.map((kind, i) => {
      progress(i / LINEAR_KINDS.length, kind);
      return rangesOfKind(layers, kind);
    });
    const all = Float64Array.from(perKind.flatMap(({ relative }) => Array.from(relative))).sort();
    const rows = [...perKind.map(({ kind, relative }) => describe(kind, relative)), describe("all", all)];
    const large = shareAbove(all, LARGE);
    const spread = all[all.length - 1];
    return {
      settings: {
        "channels a group": GROUP_CHANNELS,
        "range of a group":
          "highest minus lowest weight, divided by the median of its kind of layer in its transformer layer",
      },
      columns: [
        { key: "layer", label: "layer", unit: "" },
        { key: "groups", label: "groups", unit: "" },
        { key: "p1", label: "1st percentile", unit: "x median" },
        { key: "p90", label: "90th percentile", unit: "x median" },
        { key: "p99", label: "99th percentile", unit: "x median" },
        { key: "max", label: "largest", unit: "x median" },
        { key: "above_1_5", label: "above 1.5 x median", unit: "share" },
        { key: "above_2", label: "above 2 x median", unit: "share" },
        { key: "above_3", label: "above 3 x median", unit: "share" },
        { key: "top_tenth", label: "range held by the largest tenth", unit: "share" },
        { key: "gini", label: "Gini coefficient", unit: "" },
      ],
      rows,
      samples: { lorenz_all: lorenzCurve(all, 50), histogram_all: [BIN, ...histogram(all, BIN)] },
      verdict: {
        paper: "a small fraction",
        measured: large,
        unit: `share of groups above ${LARGE} x median`,
        status: large <= SMALL_SHARE && spread >= SPREAD
          ? "reproduced"
          : large <= SMALL_SHARE
          ? "partly"
          : "not reproduced",
        note: `The largest group has ${spread.toFixed(1)} x the median range. Reproduced means: at most ` +
          `${SMALL_SHARE * 100} % of groups above ${LARGE} x median, and the largest above ${SPREAD} x.`,
      },
    };
  },
};

/** Ranges of all groups of one kind of layer, relative to the median of each matrix, ascending. */
function rangesOfKind(layers: readonly Layer[], kind: LinearKind): { kind: LinearKind; relative: Float64Array } {
  const relative = layers.flatMap(({ linears }) => {
    const sorted = groupWidths(linears[kind].weights, linears[kind].channels).sort();
    const median = sorted[sorted.length >> 1];
    return Array.from(sorted, (width) => width / median);
  });
  return { kind, relative: Float64Array.from(relative).sort() };
}

/** Highest minus lowest weight of each group; the last group of a row may be short. */
function groupWidths(weights: Float32Array, channels: number): Float64Array {
  const groups = Math.ceil(channels / GROUP_CHANNELS);
  return Float64Array.from(
    { length: (weights.length / channels) * groups },
    (_, i) => rangeOf(groupOfRow(weights, Math.floor(i / groups), channels, i % groups)),
  );
}

function describe(layer: string, sorted: Float64Array): Row {
  const quantile = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  const curve = lorenzCurve(sorted, 10);
  return {
    layer,
    groups: sorted.length,
    p1: quantile(0.01),
    p90: quantile(0.9),
    p99: quantile(0.99),
    max: sorted[sorted.length - 1],
    above_1_5: shareAbove(sorted, 1.5),
    above_2: shareAbove(sorted, 2),
    above_3: shareAbove(sorted, 3),
    top_tenth: 1 - curve[9],
    gini: gini(sorted),
  };
}

function shareAbove(sorted: Float64Array, limit: number): number {
  return sorted.filter((value) => value > limit).length / sorted.length;
}

/** Share of the total that the smallest i / points of the values hold, for i = 0 .. points. */
function lorenzCurve(sorted: Float64Array, points: number): number[] {
  const total = sorted.reduce((sum, value) => sum + value, 0);
  const curve = [0];
  let sum = 0;
  let at = 0;
  for (let i = 1; i <= points; i++) {
    for (; at < Math.round((i * sorted.length) / points); at++) sum += sorted[at];
    curve.push(sum / total);
  }
  return curve;
}

/** Share of ascending values in each bin from 0 on. */
function histogram(sorted: Float64Array, width: number): number[] {
  const shares = new Array<number>(Math.floor(sorted[sorted.length - 1] / width) + 1).fill(0);
  for (const value of sorted) shares[Math.floor(value / width)] += 1 / sorted.length;
  return shares;
}

/** Gini coefficient of ascending values: 0 where all are equal. */
function gini(sorted: Float64Array): number {
  let weighted = 0;
  let total = 0;
  for (const [i, value] of sorted.entries()) {
    weighted += (2 * (i + 1) - sorted.length - 1) * value;
    total += value;
  }
  return weighted / (sorted.length * total);
}
