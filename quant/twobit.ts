// The method: quantizing a matrix to the packed format.
//
// For each tile of 16 rows: probe the groups, pick the refined ones and the outliers, set the second-order scales, then
// go through the groups in the order of error feedback; each group's scale and zero codes are searched when its turn
// comes, on weights that already carry the errors of the groups before. Tiles don't depend on each other, so any
// range of tiles can be quantized anywhere with the same result.
//
// What each step is worth on the embedded model, as perplexity over the unquantized model's (one refined group in 8,
// 128 calibration windows, 96 windows of held-out speeches, paired standard error 0.003; a study in PyTorch):
//
//     scales searched, no feedback                                              1.281
//     ... weighted by the Hessian's diagonal                                    1.196
//     error feedback, scales fixed before                                       1.129
//     scales searched at their turn, with the feedback inside the group         1.102   (natural order: 1.107)
//     refined group picked by range 1.106, at random 1.120, whole columns 1.120
//     targets corrected for changed inputs                                      1.060
//     ... and for what the residual stream lacks                                1.056
//
// Tried and left out: coordinate descent on codes after the feedback (-0.003 for a third more time), refitting d (0),
// several candidates for d (0), a Hessian-weighted probe (0), inputs of the unquantized model for the Hessian (0),
// smoothing and permuting channels (0), refitting norms (0), coupling rows by a Fisher matrix (-0.003, needs
// gradients), densities that differ between q, k and v or gate and up (three products where one would do; equal ones
// are as good), outliers (-0.003 for 0.0224 bits where rows have 1024 channels; as refined groups these gain more).
//
// These numbers are in-domain: that model was trained on the kind of text that it is calibrated and scored on. A second
// study (PyTorch, 2026-11-28, one refined group in 8) took SmolLM2-135M-Instruct (2.833 bits; WikiText-2 valid, 401
// windows) beside the embedded model (2.8125 bits; held-out speeches, 504 windows), perplexity over unquantized. On
// SmolLM2 other windows of the same text move a result by 2 %, so less says nothing there; on the embedded model 0.1 %.
//
//     lever                                                      SmolLM2         embedded
//     text, corrected: speeches and Moby Dick, 40 x 512            1.838           1.067
//     ... the same text, 128 x 2048                                1.672           1.057
//     ... a broad mix, 128 x 512                                   1.459           1.096
//     ... the mix, 128 x 2048                                      1.460           1.095
//     ... of the kind that is scored on                            1.199           1.057
//     correction over feedback alone, mix 128 x 512               -15 %           -4 %
//     ... without what the residual stream lacks                  +10.5 %         +0.4 %
//     ... weaker by held-out windows, 20,000 tokens / 65,000      -1 % / +4.4 %   -0.4 % / -0.1 %
//     Hessians guided by the output's gradient, with correction   +5 %            +0.7 %
//     densities by each matrix's KL, in 2.85 bits                 noise           -0.5 %
//     ... by errors without KL                                    +3 % or more    -0.4 % (noise)
//     0.05 % outliers, bits not made up for (0.06)                noise           0
//     ... within 2.85 bits                                        not run         +0.5 %
//     scales searched without text: every channel alike            30.7            1.274
//     ... errors and picks weighted by the diagonal of the
//         Hessian of 40 x 512 random tokens                         2.135           1.223
//     d and norms tuned by gradients (quantize --tune)            -7.4 %          -0.5 %
//
// On its own held-out text SmolLM2 stands at 2.085 with speeches and 1.370 with the mix; densities by KL gain 2.8 %
// there. So: text first; correction always; guided Hessians and outliers not; densities by stage
// (quant/densities/); tuning.
//
// What is built of that, by this program on an H200 (2026-11-28; SmolLM2: 396 windows of the last three quarters of
// WikiText-2 valid, 28.22 unquantized, standard errors of ratios about 0.005; embedded model: 504 windows of held-out
// speeches, 26.14):
//
//     SmolLM2                                       bits   ratio    embedded model                 bits   ratio
//     search                                        2.833  2.155    feedback, speeches 128 x 512   2.813  1.105
//     feedback, mix 128 x 512 but for an eighth     2.833  1.770    corrected                      2.813  1.054
//     corrected                                     2.833  1.546    ... 448 x 512                  2.813  1.052
//     ... mix+self 448 x 512                        2.833  1.460    ... scales tuned               2.813  1.044
//     ... densities by KL, tuned (the default)      2.850  1.328    ... densities by KL            2.850  1.045
//     feedback, first quarter of valid, 128 x 512   2.833  1.469    ... both (the default)         2.848  1.041
//     corrected                                     2.833  1.209
//     ... all 133 windows of it, tuned              2.833  1.170
//     ... densities by KL, tuned                    2.850  1.153
//     ... with the mix, 138 + 224 windows           2.850  1.142
//     ... those 138 overlapping, 223 + 224          2.850  1.138   (within one to two errors of the row above)
//
// Outliers beside feedback alone, mix+self (SmolLM2, 384 windows of all of valid): none 1.830, 0.05 % of 2-bit groups'
// weights for 0.064 bits more 1.718, 0.2 % for 0.110 bits 1.690; corrected targets without any 1.501. Those, the lines
// of 128 x 512, both defaults, search and the last line of SmolLM2 are in results/nvidia-h200/.
import { packedBits } from "./bits.ts";
import { channelWeightsOf } from "./channel_weights.ts";
import { checkMatrix } from "./check.ts";
import { concatenateRows } from "./concatenate.ts";
import { dequantize } from "./dequantize.ts";
import { GROUP_CHANNELS, groupsPerRow, type RefineEvery, TILE_ROWS, tilesPerColumn } from "./format.ts";
import { createGroupProblem } from "./group_search.ts";
import { checkInput } from "./input_knowledge.ts";
import type { OutlierSettings } from "./outliers.ts";
import { pack } from "./pack.ts";
import { type PackedTensor, planeBytes } from "./packed_tensor.ts";
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
  dequantize,
  sizeBytes: (tensor) => Object.values(planeBytes(tensor)).reduce((sum, bytes) => sum + bytes, 0),
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
