// The method: quantizing a matrix to the packed format.
//
// For each tile of 16 rows: probe the groups, pick the refined ones and the outliers, set the second-order scales, then
// go through the groups in the order of error feedback; each group's scale and zero codes are searched when its turn
// comes, on weights that already carry the errors of the groups before. Tiles don't depend on each other, so any
// range of tiles can be quantized anywhere with the same result.
// docs/method.md says what each step is worth, and what was tried and left out.
import { packedBits } from "./bits.ts";
import { channelWeightsOf } from "./channel_weights.ts";
import { checkMatrix } from "./check.ts";
import { concatenateRows, sliceTiles } from "./concatenate.ts";
import { dequantize } from "./dequantize.ts";
import { GROUP_CHANNELS, groupsPerRow, type RefineEvery, TILE_ROWS, tilesPerColumn } from "./format.ts";
import { createGroupProblem } from "./group_search.ts";
import { checkInput } from "./input_knowledge.ts";
import type { OutlierSettings } from "./outliers.ts";
import { pack } from "./pack.ts";
import type { PackedTensor } from "./packed_tensor.ts";
import { quantizeTile, type RowResiduals } from "./quantize_tile.ts";
import { type InputNeeds, type Part, type QuantizerKind, rowsOfTiles } from "./quantizer.ts";
import { type PickRule, sumStrips } from "./refine_pick.ts";
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

export interface TwobitQuantizer extends InputNeeds {
  readonly kind: "twobit";
  readonly settings: TwobitSettings;
}

/** What is known of a matrix's input, and which part of the matrix is wanted. */
export interface TwobitPart extends Omit<Part, "diagonal"> {
  /** f64 [channels]: how much squared errors count where there is no feedback; all 1 by default. */
  readonly channelWeights?: Float64Array;
}

export const TWOBIT: QuantizerKind<TwobitQuantizer, PackedTensor> = {
  hasIndependentTiles: () => true,
  quantize: ({ weights, rows, channels }, { settings }, { diagonal, ...part }) =>
    quantizeTwobit(weights, rows, channels, settings, {
      ...part,
      ...(diagonal && { channelWeights: channelWeightsOf(diagonal) }),
    }),
  join: concatenateRows,
  slice: sliceTiles,
  dequantize,
  bits(rows, channels, { settings: { refineEvery, outliers: { share } } }) {
    const outliersOf = (rows: number) => Math.round(share * rows * channels);
    const outliers = Math.floor(rows / TILE_ROWS) * outliersOf(TILE_ROWS) + outliersOf(rows % TILE_ROWS);
    return packedBits(rows, channels, refineEvery, outliers);
  },
};

/**
 * Quantizes a matrix, or some of its tiles.
 *
 * @param weights f32 [rows, channels], the whole matrix
 * @param part the tiles, and what is known of the layer's input, for error feedback and corrected targets
 * @throws {TypeError | RangeError} for a matrix that is empty, misshapen, not finite or too large for f16 scales
 */
export function quantizeTwobit(
  weights: Float32Array,
  rows: number,
  channels: number,
  settings: TwobitSettings,
  part: TwobitPart = {},
): PackedTensor {
  checkMatrix(weights, rows, channels);
  const { feedback, correlation, channelWeights, tiles: [firstTile, lastTile] = [0, tilesPerColumn(rows)] } = part;
  const wanted = rowsOfTiles({ weights, rows, channels }, [firstTile, lastTile]);
  checkInput(part, wanted.rows, channels);
  if (channelWeights && channelWeights.length !== channels) {
    throw new TypeError(`${channelWeights.length} channel weights are given, must be ${channels}`);
  }
  if (channelWeights && feedback) throw new TypeError("channel weights are given with feedback, must be without it");
  if (feedback?.keepsGroups === false) {
    throw new RangeError("order of feedback splits groups, must be natural or groups");
  }
  const target = feedback && correlation ? shiftToTarget(wanted.weights, correlation, feedback) : wanted.weights;
  const stripScores = settings.pick === "strip"
    ? sumStrips(weights, rows, groupsPerRow(channels), feedback?.diagonal ?? channelWeights)
    : undefined;
  const [probed, rounded] = [createGroupProblem(), createGroupProblem(feedback !== undefined)];
  const { tensor, residuals } = createTensor(wanted.rows, channels, settings.refineEvery);
  for (let tile = firstTile; tile < lastTile; tile++) {
    quantizeTile({
      weights: target,
      channels,
      settings,
      tile,
      firstTile,
      tensor,
      residuals,
      probed,
      rounded,
      ...(feedback && { feedback }),
      ...(channelWeights && { channelWeights }),
      ...(stripScores && { stripScores }),
    });
  }
  return pack({ ...tensor, outliers: collectOutliers(residuals) });
}

function createTensor(rows: number, channels: number, refineEvery: RefineEvery) {
  const groups = groupsPerRow(channels);
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
