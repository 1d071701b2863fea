/**
 * Quantizing a matrix in a baseline's layout, by round to nearest or with error feedback, into stored bytes.
 *
 * @module
 */
import { checkMatrix } from "./check.ts";
import { checkFeedback, type Feedback, quantizeWithFeedback } from "./error_feedback.ts";
import { nearestCodes } from "./grid.ts";
import type { StripLayout } from "./strip_layout.ts";
import { fitStripScales, type ScaleSearch } from "./strip_scales.ts";
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
 * @param feedback error feedback (GPTQ) prepared from the Hessian of the layer's input; without it, round to nearest
 * @throws {TypeError | RangeError} for a matrix that is empty, misshapen or not finite
 */
export function quantizeBaseline(
  weights: Float32Array,
  rows: number,
  channels: number,
  settings: BaselineSettings,
  feedback?: Feedback,
): StripTensor {
  checkMatrix(weights, rows, channels);
  if (feedback) checkFeedback(feedback, channels);
  const { layout, search } = settings;
  const importance = feedback?.diagonal ?? new Float64Array(channels).fill(1);
  const { scales, grouping } = fitStripScales(layout, weights, rows, importance, search);
  const grid = stripGrid(layout, rows, grouping, scales);
  const codes = feedback ? quantizeWithFeedback(weights, grid, feedback) : nearestCodes(weights, grid);
  return packStrips(layout, rows, channels, codes, scales);
}
