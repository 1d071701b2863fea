// Quantizing a tile: 16 rows whose groups share second-order scales.
import { type Feedback, feedBack } from "./error_feedback.ts";
import { MAX_F16 } from "./float16.ts";
import { BASE_ZEROS, GROUP_CHANNELS, REFINED_ZEROS, SCALE_CODES, TILE_ROWS } from "./format.ts";
import { type GroupProblem, roundGroup, searchAllCodes } from "./group_search.ts";
import { pickOutliers } from "./outliers.ts";
import { groupOfRow, type GroupProbe, probeGroup } from "./probe.ts";
import { pickRefined } from "./refine_pick.ts";
import type { TwobitSettings } from "./twobit.ts";
import type { UnpackedTensor } from "./unpacked_tensor.ts";

/** Residuals of a row's outliers, by channel. */
export type RowResiduals = Map<number, number>;

export interface TileTask {
  /** f32: the rows of the tensor below. */
  readonly weights: Float32Array;
  readonly channels: number;
  readonly settings: TwobitSettings;
  readonly tile: number;
  readonly firstTile: number;
  readonly tensor: Omit<UnpackedTensor, "outliers">;
  readonly residuals: readonly RowResiduals[];
  /** Problems to probe groups and to round them with, which tiles of one matrix use up one after the other. */
  readonly probed: GroupProblem;
  readonly rounded: GroupProblem;
  readonly feedback?: Feedback;
  /** f64 [channels]: how much squared errors count, where there is no feedback. */
  readonly channelWeights?: Float64Array;
  readonly stripScores?: Float64Array<ArrayBuffer>;
}

export function quantizeTile(task: TileTask): void {
  const { weights, channels, settings, tile, firstTile, tensor } = task;
  const firstRow = (tile - firstTile) * TILE_ROWS;
  const rows = Math.min(TILE_ROWS, tensor.rows - firstRow);
  const groups = tensor.scaleCodes.length / tensor.rows;
  const probes = Array.from(
    { length: rows },
    (_, r) =>
      Array.from(
        { length: groups },
        (_, group) => probeGroup(groupOfRow(weights, firstRow + r, channels, group), task.probed),
      ),
  );
  const importance = task.feedback?.diagonal ?? task.channelWeights;
  const refined = pickRefined(probes, settings.refineEvery, settings.pick, {
    seed: settings.seed + tile,
    ...(importance && { importance }),
    ...(task.stripScores && { stripScores: task.stripScores }),
  });
  const groupWeights = (r: number, group: number) => groupOfRow(weights, firstRow + r, channels, group);
  const outliers = pickOutliers(probes, refined, groupWeights, rows * channels, settings.outliers);
  setTileScales(task, probes, refined, outliers, groups);
  for (let r = 0; r < rows; r++) tensor.refined.set(refined[r], (firstRow + r) * groups);
  quantizeRows(task, firstRow, outliers.map(({ masks }) => masks));
}

/** Sets d of each group column so that the largest wanted scale has the highest code. */
function setTileScales(
  { tile, firstTile, tensor }: TileTask,
  probes: readonly (readonly GroupProbe[])[],
  refined: readonly Uint8Array[],
  outliers: readonly { readonly scales: ReadonlyMap<number, number> }[],
  groups: number,
): void {
  const wanted = probes.map((row, r) =>
    Float64Array.from(
      row,
      (probe, group) => outliers[r].scales.get(group) ?? (refined[r][group] === 1 ? probe.fourBit : probe.twoBit).scale,
    )
  );
  for (let group = 0; group < groups; group++) {
    const d = Math.max(...wanted.map((scales) => scales[group])) / (SCALE_CODES - 1);
    if (d > MAX_F16) {
      throw new RangeError(`group column ${group} of tile ${tile} needs the scale ${d}, must be at most ${MAX_F16}`);
    }
    tensor.tileScale[(tile - firstTile) * groups + group] = d;
  }
}

/**
 * Quantizes the rows of a tile, group by group in the order of feedback: all rows of a group before the next, since
 * they read the same coefficients of feedback, which are megabytes.
 */
function quantizeRows(task: TileTask, firstRow: number, masks: readonly ReadonlyMap<number, number>[]): void {
  const { channels, feedback, rounded: problem } = task;
  const errors = new Float64Array(masks.length * channels);
  const fed = Array.from({ length: GROUP_CHANNELS }, () => new Float64Array(TILE_ROWS));
  for (let first = 0; first < channels; first += problem.size) {
    const group = Math.floor((feedback?.order[first] ?? first) / GROUP_CHANNELS);
    problem.size = Math.min(GROUP_CHANNELS, channels - group * GROUP_CHANNELS);
    poseGroup(task, first);
    for (let k = 0; k < problem.size && feedback; k++) {
      feedBack(errors, masks.length, feedback, first + k, first, fed[k]);
    }
    for (const [r, mask] of masks.entries()) {
      problem.outliers = mask.get(group) ?? 0;
      poseRow(task, (firstRow + r) * channels + group * GROUP_CHANNELS, fed, r);
      quantizeGroup(task, firstRow + r, group);
      for (let k = 0; k < problem.size; k++) errors[r * channels + first + k] = problem.values[k];
    }
  }
}

/** Quantizes a group of a row, whose problem has been posed; leaves its weights' errors in the problem's values. */
function quantizeGroup(task: TileTask, row: number, group: number): void {
  const { weights, channels, tensor, tile, firstTile, rounded: problem } = task;
  const { values, codes, size, outliers } = problem;
  const groups = tensor.scaleCodes.length / tensor.rows;
  const at = row * channels + group * GROUP_CHANNELS;
  const index = row * groups + group;
  const refined = tensor.refined[index] === 1;
  const d = tensor.tileScale[(tile - firstTile) * groups + group];
  const { scaleCode, zeroCode } = searchAllCodes(problem, d, refined);
  const zero = (refined ? REFINED_ZEROS : BASE_ZEROS)[zeroCode];
  roundGroup(problem, scaleCode * d, zero, refined, Infinity);
  tensor.scaleCodes[index] = scaleCode;
  tensor.zeroCodes[index] = zeroCode;
  for (let k = 0; k < size; k++) {
    tensor.codes[index * GROUP_CHANNELS + k] = codes[k];
    let value = values[k];
    if ((outliers >> k) & 1) {
      const grid = (refined ? codes[k] / 4 - zero : codes[k] - zero) * scaleCode * d;
      const residual = residualOf(value - grid);
      task.residuals[row].set(group * GROUP_CHANNELS + k, residual);
      value = grid + residual;
    }
    values[k] = weights[at + k] - value;
  }
}

/** Sets up what the searches of a group have in common for all rows: how errors count and what they pull. */
function poseGroup({ feedback, channelWeights, rounded: { size, pivot, pull } }: TileTask, first: number): void {
  for (let k = 0; k < size; k++) {
    // Without feedback channels come in their natural order.
    if (!feedback || !pull) pivot[k] = channelWeights ? Math.sqrt(channelWeights[first + k]) : 1;
    else {
      const at = (first + k) * feedback.channels + first;
      for (let j = 0; j < k; j++) pull[j * GROUP_CHANNELS + k] = feedback.coefficients[at + j];
      pivot[k] = feedback.coefficients[at + k];
    }
  }
}

/**
 * Sets up a row's weights of a group, from `at` on, as the feedback of the groups before leaves them.
 *
 * @param fed f64 [16, rows]: what the groups before give to each channel of row `r`
 */
function poseRow(
  { weights, rounded: { size, start, pull } }: TileTask,
  at: number,
  fed: readonly Float64Array[],
  r: number,
): void {
  for (let k = 0; k < size; k++) {
    start[k] = weights[at + k];
    if (!pull) continue;
    start[k] += fed[k][r];
    for (let j = 0; j < k; j++) start[k] += weights[at + j] * pull[j * GROUP_CHANNELS + k];
  }
}

/** An outlier's residual, rounded to f16. @throws {RangeError} beyond f16's range */
function residualOf(value: number): number {
  const residual = Math.f16round(value);
  if (!Number.isFinite(residual)) {
    throw new RangeError(`an outlier needs the residual ${value}, must be at most ${MAX_F16}`);
  }
  return residual;
}
