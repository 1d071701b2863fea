// The baselines' quantizer: a matrix in a strip layout, by round to nearest or with error feedback (GPTQ).
import { checkMatrix } from "../check.ts";
import { quantizeWithFeedback } from "../error_feedback.ts";
import { nearestCodes } from "../grid.ts";
import { checkInput } from "../input_knowledge.ts";
import { type InputNeeds, type Part, type QuantizerKind, rowsOfTiles } from "../quantizer.ts";
import { stripBits, type StripLayout } from "./strip_layout.ts";
import { fitStripScales, type ScaleSearch } from "./strip_scales.ts";
import { shiftToTarget } from "../target.ts";
import { dequantizeStrips, joinStrips, packStrips, sliceStrips, stripGrid, type StripTensor } from "./strip_tensor.ts";

export interface StripSettings {
  readonly layout: StripLayout;
  readonly search: ScaleSearch;
}

export interface StripQuantizer extends InputNeeds {
  readonly kind: "strips";
  readonly settings: StripSettings;
}

/** What baselines do. Scales need all rows of a tile's channels, and 4-bit strips are picked by the whole matrix. */
export const STRIPS: QuantizerKind<StripQuantizer, StripTensor> = {
  hasIndependentTiles: ({ settings: { layout } }) => layout.fourBitShare === 0,
  quantize(matrix, { settings }, part) {
    const { weights, rows, channels } = rowsOfTiles(matrix, part.tiles);
    return quantizeStrips(weights, rows, channels, settings, part);
  },
  join: joinStrips,
  slice: sliceStrips,
  dequantize: dequantizeStrips,
  bits: (rows, channels, { settings: { layout } }) => stripBits(layout, rows, channels),
};

/**
 * Quantizes a matrix in a baseline's layout.
 *
 * @param weights f32 [rows, channels]
 * @param part what is known of the layer's input, for error feedback (GPTQ); without it, round to nearest
 * @throws {TypeError | RangeError} for a matrix that is empty, misshapen or not finite
 */
export function quantizeStrips(
  weights: Float32Array,
  rows: number,
  channels: number,
  settings: StripSettings,
  part: Part = {},
): StripTensor {
  checkMatrix(weights, rows, channels);
  checkInput(part, rows, channels);
  const { feedback, correlation } = part;
  const target = feedback && correlation ? shiftToTarget(weights, correlation, feedback) : weights;
  const { layout, search } = settings;
  const importance = feedback?.diagonal ?? new Float64Array(channels).fill(1);
  const { scales, grouping } = fitStripScales(layout, target, rows, importance, search);
  const grid = stripGrid(layout, rows, grouping, scales);
  const codes = feedback ? quantizeWithFeedback(target, grid, feedback) : nearestCodes(target, grid);
  return packStrips(layout, rows, channels, codes, scales);
}
