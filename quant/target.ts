// The target of quantization when the layer's input has changed because earlier layers were quantized.
//
// With the inputs x of the unquantized model and x' of the quantized one, the row that best reproduces the wanted
// output is not w but w + (w sum of (x - x') x'ᵀ + sum of r x'ᵀ) H⁻¹, where H = sum of x' x'ᵀ and r is what the
// residual stream still lacks. GPTAQ (Li et al. 2025) corrects for x - x' in this way; the term with r lets the
// matrices that write to the residual stream also make up for what was lost before them.
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
  const rows = weights.length / channels;
  const shifts = new Float64Array(SOLVED_ROWS * channels);
  for (let first = 0; first < rows; first += SOLVED_ROWS) {
    const count = Math.min(SOLVED_ROWS, rows - first);
    for (let r = 0; r < count; r++) {
      const row = (first + r) * channels;
      for (let k = 0; k < channels; k++) shifts[SOLVED_ROWS * k + r] = correlation[row + order[k]];
    }
    solve(shifts, feedback);
    for (let r = 0; r < count; r++) {
      const row = (first + r) * channels;
      for (let k = 0; k < channels; k++) target[row + order[k]] = weights[row + order[k]] + shifts[SOLVED_ROWS * k + r];
    }
  }
  return target;
}

/** Rows that are solved together: each sum waits for the one before, so that a row alone leaves the processor idle. */
const SOLVED_ROWS = 4;

/** Solves (V Vᵀ) s = b in place for four rows, f64 [channels, 4]; b and s in quantization order. */
function solve(vectors: Float64Array, { channels, coefficients }: Feedback): void {
  // Row k of coefficients holds column k of V, divided by its pivot above the diagonal.
  for (let k = channels - 1; k >= 0; k--) {
    const at = SOLVED_ROWS * k;
    const [a, b, c, d] = [vectors[at], vectors[at + 1], vectors[at + 2], vectors[at + 3]];
    for (let i = 0, to = 0, from = k * channels; i < k; i++, to += SOLVED_ROWS, from++) {
      const coefficient = coefficients[from];
      vectors[to] -= coefficient * a;
      vectors[to + 1] -= coefficient * b;
      vectors[to + 2] -= coefficient * c;
      vectors[to + 3] -= coefficient * d;
    }
  }
  for (let k = 0; k < channels; k++) {
    const at = SOLVED_ROWS * k;
    const pivot = coefficients[k * channels + k];
    const square = pivot * pivot;
    let a = vectors[at] / square;
    let b = vectors[at + 1] / square;
    let c = vectors[at + 2] / square;
    let d = vectors[at + 3] / square;
    for (let i = 0, of = 0, from = k * channels; i < k; i++, of += SOLVED_ROWS, from++) {
      const coefficient = coefficients[from];
      a -= coefficient * vectors[of];
      b -= coefficient * vectors[of + 1];
      c -= coefficient * vectors[of + 2];
      d -= coefficient * vectors[of + 3];
    }
    vectors[at] = a;
    vectors[at + 1] = b;
    vectors[at + 2] = c;
    vectors[at + 3] = d;
  }
}
