/**
 * The target of quantization when the layer's input has changed because earlier layers were quantized.
 *
 * With the inputs x of the unquantized model and x' of the quantized one, the row that best reproduces the wanted
 * output is not w but w + (w sum of (x - x') x'ᵀ + sum of r x'ᵀ) H⁻¹, where H = sum of x' x'ᵀ and r is what the
 * residual stream still lacks. GPTAQ (Li et al. 2025) corrects for x - x' in this way; the term with r lets the
 * matrices that write to the residual stream also make up for what was lost before them.
 *
 * @module
 */
import type { Feedback } from "./error_feedback.ts";

/**
 * Moves weights to their target.
 *
 * @param weights f32 [rows, channels]
 * @param correlation f32 [rows, channels]: w sum of (x - x') x'ᵀ + sum of r x'ᵀ
 * @returns f32 [rows, channels]
 */
export function shiftToTarget(
  weights: Float32Array,
  correlation: Float32Array,
  feedback: Feedback,
): Float32Array<ArrayBuffer> {
  const { channels, order } = feedback;
  const target = new Float32Array(weights.length);
  const shift = new Float64Array(channels);
  for (let row = 0; row < weights.length; row += channels) {
    for (let k = 0; k < channels; k++) shift[k] = correlation[row + order[k]];
    solve(shift, feedback);
    for (let k = 0; k < channels; k++) target[row + order[k]] = weights[row + order[k]] + shift[k];
  }
  return target;
}

/** Solves (V Vᵀ) s = b in place; b and s in quantization order. */
function solve(vector: Float64Array, { channels, coefficients }: Feedback): void {
  // Row k of coefficients holds column k of V, divided by its pivot above the diagonal.
  for (let k = channels - 1; k >= 0; k--) {
    const value = vector[k];
    const row = k * channels;
    for (let i = 0; i < k; i++) vector[i] -= coefficients[row + i] * value;
  }
  for (let k = 0; k < channels; k++) {
    const row = k * channels;
    const pivot = coefficients[row + k];
    let sum = vector[k] / (pivot * pivot);
    for (let i = 0; i < k; i++) sum -= coefficients[row + i] * vector[i];
    vector[k] = sum;
  }
}
