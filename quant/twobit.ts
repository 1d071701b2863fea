/**
 * The method: quantizing a matrix to the packed format.
 *
 * For each tile of 16 rows: probe the groups, pick the refined ones and the outliers, set the second-order scales, then
 * go through the groups in the order of error feedback; each group's scale and zero codes are searched when its turn
 * comes, on weights that already carry the errors of the groups before. Tiles don't depend on each other, so any
 * range of tiles can be quantized anywhere with the same result.
 *
 * What each step is worth on the embedded model, as perplexity over the unquantized model's (one refined group in 8,
 * 128 calibration windows, 96 windows of held-out speeches, paired standard error 0.003; a study in PyTorch):
 *
 *     scales searched, no feedback                                              1.281
 *     ... weighted by the Hessian's diagonal                                    1.196
 *     error feedback, scales fixed before                                       1.129
 *     scales searched at their turn, with the feedback inside the group         1.102   (natural order: 1.107)
 *     refined group picked by range 1.106, at random 1.120, whole columns 1.120
 *     targets corrected for changed inputs                                      1.060
 *     ... and for what the residual stream lacks                                1.056
 *
 * Tried and left out: coordinate descent on codes after the feedback (-0.003 for a third more time), refitting d (0),
 * several candidates for d (0), a Hessian-weighted probe (0), inputs of the unquantized model for the Hessian (0),
 * smoothing and permuting channels (0), refitting norms (0), coupling rows by a Fisher matrix (-0.003, needs gradients),
 * densities that differ by kind of matrix within 2.85 bits (-0.006; but q, k and v of different densities are three
 * products where one would do, and decoding is a third slower),
 * outliers (-0.003 for 0.0224 bits where rows have 1024 channels; the same bits are worth more as refined groups).
 *
 * @module
 */
import { checkMatrix } from "./check.ts";
import { dotRuns } from "./dot.ts";
import type { Feedback } from "./error_feedback.ts";
import {
  BASE_ZEROS,
  BLOCK_GROUPS,
  blocksPerRow,
  GROUP_CHANNELS,
  REFINED_ZEROS,
  type RefineEvery,
  SCALE_CODES,
  TILE_ROWS,
  tilesPerColumn,
} from "./format.ts";
import { MAX_F16 } from "./float16.ts";
import { createGroupProblem, roundGroup, searchAllCodes } from "./group_search.ts";
import { checkInput, type InputKnowledge } from "./input_knowledge.ts";
import { type OutlierSettings, pickOutliers } from "./outliers.ts";
import { pack } from "./pack.ts";
import type { PackedTensor } from "./packed_tensor.ts";
import { groupOfRow, type GroupProbe, probeGroup } from "./probe.ts";
import { pickRefined, type PickRule, sumStrips } from "./refine_pick.ts";
import { shiftToTarget } from "./target.ts";
import { NO_OUTLIERS, type UnpackedTensor } from "./unpacked_tensor.ts";

/** Settings of the method. */
export interface TwobitSettings {
  /** One refined group in every so many. */
  readonly refineEvery: RefineEvery;
  /** Which group of a run is refined. */
  readonly pick: PickRule;
  /** Which weights become outliers. */
  readonly outliers: OutlierSettings;
  /** Seed of random picks. */
  readonly seed: number;
}

/**
 * Quantizes tiles `firstTile` .. `lastTile` - 1 of a matrix (all of them by default).
 *
 * @param weights f32 [rows, channels], the whole matrix
 * @throws {TypeError | RangeError} for a matrix that is empty, misshapen, not finite or too large for f16 scales
 */
export function quantizeTwobit(
  weights: Float32Array,
  rows: number,
  channels: number,
  settings: TwobitSettings,
  input?: InputKnowledge,
  [firstTile, lastTile]: readonly [number, number] = [0, tilesPerColumn(rows)],
): PackedTensor {
  checkMatrix(weights, rows, channels);
  if (!(0 <= firstTile && firstTile < lastTile && lastTile <= tilesPerColumn(rows))) {
    throw new RangeError(`tiles are ${firstTile}..${lastTile}, must lie within 0..${tilesPerColumn(rows)}`);
  }
  const firstRow = firstTile * TILE_ROWS;
  const lastRow = Math.min(rows, lastTile * TILE_ROWS);
  if (input) {
    checkInput(input, lastRow - firstRow, channels);
    if (!input.feedback.keepsGroups) throw new RangeError("order of feedback splits groups, must be natural or groups");
  }
  const part = weights.subarray(firstRow * channels, lastRow * channels);
  const target = input?.correlation ? shiftToTarget(part, input.correlation, input.feedback) : part;
  const stripScores = settings.pick === "strip"
    ? sumStrips(weights, rows, blocksPerRow(channels) * BLOCK_GROUPS, input?.feedback.diagonal)
    : undefined;
  const { tensor, residuals } = createTensor(lastRow - firstRow, channels, settings.refineEvery);
  for (let tile = firstTile; tile < lastTile; tile++) {
    quantizeTile({
      weights: target,
      channels,
      settings,
      tile,
      firstTile,
      tensor,
      residuals,
      ...(input && { input }),
      ...(stripScores && { stripScores }),
    });
  }
  return pack({ ...tensor, outliers: collectOutliers(residuals) });
}

/** Residuals of a row's outliers, by channel. */
type RowResiduals = Map<number, number>;

interface TileTask {
  /** f32: the rows of the tensor below. */
  readonly weights: Float32Array;
  readonly channels: number;
  readonly settings: TwobitSettings;
  readonly tile: number;
  readonly firstTile: number;
  readonly tensor: Omit<UnpackedTensor, "outliers">;
  readonly residuals: readonly RowResiduals[];
  readonly input?: InputKnowledge;
  readonly stripScores?: Float64Array<ArrayBuffer>;
}

function createTensor(rows: number, channels: number, refineEvery: RefineEvery) {
  const groups = blocksPerRow(channels) * BLOCK_GROUPS;
  const tensor: Omit<UnpackedTensor, "outliers"> = {
    rows,
    channels,
    refineEvery,
    codes: new Uint8Array(rows * groups * GROUP_CHANNELS),
    scaleCodes: new Uint8Array(rows * groups),
    zeroCodes: new Uint8Array(rows * groups),
    refined: new Uint8Array(rows * groups),
    tileScale: new Float16Array(tilesPerColumn(rows) * groups),
  };
  return { tensor, residuals: Array.from({ length: rows }, (): RowResiduals => new Map()) };
}

function quantizeTile(task: TileTask): void {
  const { weights, channels, settings, tile, firstTile, tensor } = task;
  const firstRow = (tile - firstTile) * TILE_ROWS;
  const rows = Math.min(TILE_ROWS, tensor.rows - firstRow);
  const groups = tensor.scaleCodes.length / tensor.rows;
  const probes = Array.from(
    { length: rows },
    (_, r) =>
      Array.from({ length: groups }, (_, group) => probeGroup(groupOfRow(weights, firstRow + r, channels, group))),
  );
  const importance = task.input?.feedback.diagonal;
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

const problem = createGroupProblem();
problem.pull = new Float64Array(GROUP_CHANNELS * GROUP_CHANNELS);
const PULL = problem.pull;
const values = new Float64Array(GROUP_CHANNELS);
const codes = new Uint8Array(GROUP_CHANNELS);

/** Quantizes one row, group by group in the order of feedback. */
function quantizeRow(task: TileTask, row: number, masks: ReadonlyMap<number, number>): void {
  const { weights, channels, tensor, tile, firstTile, input } = task;
  const feedback = input?.feedback;
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
    poseProblem(weights, row * channels + start, first, size, mask, errors, feedback);
    const { scaleCode, zeroCode } = searchAllCodes(problem, d, refined);
    const zero = (refined ? REFINED_ZEROS : BASE_ZEROS)[zeroCode];
    roundGroup(problem, scaleCode * d, zero, refined, Infinity, values, codes);
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

/** Sets up the search of one group: its weights as the feedback of the groups before leaves them. */
function poseProblem(
  weights: Float32Array,
  at: number,
  first: number,
  size: number,
  mask: number,
  errors: Float64Array,
  feedback: Feedback | undefined,
): void {
  problem.size = size;
  problem.outliers = mask;
  problem.pull = feedback ? PULL : null;
  for (let k = 0; k < size; k++) {
    problem.start[k] = weights[at + k];
    problem.pivot[k] = 1;
  }
  if (!feedback) return;
  const { coefficients } = feedback;
  for (let k = 0; k < size; k++) {
    const rowAt = (first + k) * feedback.channels;
    let start = weights[at + k] + dotRuns(errors, 0, coefficients, rowAt, first);
    for (let j = 0; j < k; j++) {
      const pull = coefficients[rowAt + first + j];
      PULL[j * GROUP_CHANNELS + k] = pull;
      start += weights[at + j] * pull;
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

function collectOutliers(residuals: readonly RowResiduals[]): UnpackedTensor["outliers"] {
  const count = residuals.reduce((sum, row) => sum + row.size, 0);
  if (count === 0) return NO_OUTLIERS;
  const start = new Uint32Array(residuals.length + 1);
  const channel = new Uint16Array(count);
  const residual = new Float16Array(count);
  let at = 0;
  for (const [row, entries] of residuals.entries()) {
    for (const [where, value] of [...entries].sort(([a], [b]) => a - b)) {
      channel[at] = where;
      residual[at++] = value;
    }
    start[row + 1] = at;
  }
  return { start, channel, residual };
}
