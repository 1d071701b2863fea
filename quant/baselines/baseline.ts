/**
 * Quantizing a matrix in a baseline's layout, by round to nearest or with error feedback, into stored bytes.
 *
 * @module
 */
import { checkMatrix } from "../check.ts";
import { quantizeWithFeedback } from "../error_feedback.ts";
import { nearestCodes } from "../grid.ts";
import { checkInput, type InputKnowledge } from "../input_knowledge.ts";
import type { StripLayout } from "./strip_layout.ts";
import { fitStripScales, type ScaleSearch } from "./strip_scales.ts";
import { shiftToTarget } from "../target.ts";
import { packStrips, stripGrid, type StripTensor } from "./strip_tensor.ts";

/** How a baseline quantizes. */
export interface BaselineSettings {
  /** How groups, scales and zeros are stored. */
  readonly layout: StripLayout;
  /** How scales are found. */
  readonly search: ScaleSearch;
}

/**
 * Quantizes a matrix in a baseline's layout.
 *
 * @param weights f32 [rows, channels]
 * @param input what is known of the layer's input, for error feedback (GPTQ); without it, round to nearest
 * @throws {TypeError | RangeError} for a matrix that is empty, misshapen or not finite
 */
export function quantizeBaseline(
  weights: Float32Array,
  rows: number,
  channels: number,
  settings: BaselineSettings,
  input?: InputKnowledge,
): StripTensor {
  checkMatrix(weights, rows, channels);
  if (input) checkInput(input, rows, channels);
  const feedback = input?.feedback;
  const target = input?.correlation ? shiftToTarget(weights, input.correlation, input.feedback) : weights;
  const { layout, search } = settings;
  const importance = feedback?.diagonal ?? new Float64Array(channels).fill(1);
  const { scales, grouping } = fitStripScales(layout, target, rows, importance, search);
  const grid = stripGrid(layout, rows, grouping, scales);
  const codes = feedback ? quantizeWithFeedback(target, grid, feedback) : nearestCodes(target, grid);
  return packStrips(layout, rows, channels, codes, scales);
}
