/**
 * Quantizing a tile: 16 rows whose groups share second-order scales.
 *
 * @module
 */
import { dotRuns } from "./dot.ts";
import type { Feedback } from "./error_feedback.ts";
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
  for (let r = 0; r < rows; r++) {
    tensor.refined.set(refined[r], (firstRow + r) * groups);
    quantizeRow(task, firstRow + r, outliers[r].masks);
  }
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

/** Quantizes one row, group by group in the order of feedback. */
function quantizeRow(task: TileTask, row: number, masks: ReadonlyMap<number, number>): void {
  const { weights, channels, tensor, tile, firstTile, feedback, rounded: problem } = task;
  const { values, codes } = problem;
  const groups = tensor.scaleCodes.length / tensor.rows;
  const errors = new Float64Array(channels);
  for (let first = 0; first < channels;) {
    const group = Math.floor((feedback?.order[first] ?? first) / GROUP_CHANNELS);
    const start = group * GROUP_CHANNELS;
    const size = Math.min(GROUP_CHANNELS, channels - start);
    const mask = masks.get(group) ?? 0;
    const index = row * groups + group;
    const refined = tensor.refined[index] === 1;
    const d = tensor.tileScale[(tile - firstTile) * groups + group];
    problem.size = size;
    problem.outliers = mask;
    poseProblem(task, row * channels + start, first, errors);
    const { scaleCode, zeroCode } = searchAllCodes(problem, d, refined);
    const zero = (refined ? REFINED_ZEROS : BASE_ZEROS)[zeroCode];
    roundGroup(problem, scaleCode * d, zero, refined, Infinity);
    tensor.scaleCodes[index] = scaleCode;
    tensor.zeroCodes[index] = zeroCode;
    for (let k = 0; k < size; k++) {
      tensor.codes[index * GROUP_CHANNELS + k] = codes[k];
      let value = values[k];
      if ((mask >> k) & 1) {
        const grid = (refined ? codes[k] / 4 - zero : codes[k] - zero) * scaleCode * d;
        const residual = residualOf(value - grid);
        task.residuals[row].set(start + k, residual);
        value = grid + residual;
      }
      errors[first + k] = weights[row * channels + start + k] - value;
    }
    first += size;
  }
}

/**
 * Sets up the search of one group: its weights as the feedback of the groups before leaves them.
 *
 * @param at where its weights begin
 * @param first how many channels come before it in the order of feedback
 * @param errors f64 [channels]: theirs, in that order
 */
function poseProblem(
  { weights, feedback, channelWeights, rounded: problem }: TileTask,
  at: number,
  first: number,
  errors: Float64Array,
): void {
  const { size, pull } = problem;
  for (let k = 0; k < size; k++) {
    problem.start[k] = weights[at + k];
    // Without feedback channels come in their natural order.
    problem.pivot[k] = channelWeights ? Math.sqrt(channelWeights[first + k]) : 1;
  }
  if (!feedback || !pull) return;
  const { coefficients } = feedback;
  for (let k = 0; k < size; k++) {
    const rowAt = (first + k) * feedback.channels;
    let start = weights[at + k] + dotRuns(errors, 0, coefficients, rowAt, first);
    for (let j = 0; j < k; j++) {
      const coefficient = coefficients[rowAt + first + j];
      pull[j * GROUP_CHANNELS + k] = coefficient;
      start += weights[at + j] * coefficient;
    }
    problem.start[k] = start;
    problem.pivot[k] = coefficients[rowAt + first + k];
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
