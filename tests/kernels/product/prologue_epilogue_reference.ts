// CPU references of the inputs and outputs of the matrix-vector kernels, in f64, with bounds for the kernels' error.
import type { BoundedProduct } from "../../../kernels/matrix/bounded_product.ts";
import type { Epilogue } from "../../../kernels/product/prologue_epilogue.ts";

/** One token's input, as {@linkcode Prologue} on the device. */
export type ValuesOnCpu =
  | { readonly kind: "vector"; readonly x: Float32Array }
  | { readonly kind: "rms_norm"; readonly x: Float32Array; readonly weight: Float32Array; readonly epsilon: number }
  | { readonly kind: "attention"; readonly partials: Float32Array; readonly splits: number; readonly headSize: number };

/** One rounding in f32. */
const ROUNDING = 2 ** -24;

/** The input that a kernel computes for one token, and how far it may be off, channel by channel. */
export function inputOnCpu(input: ValuesOnCpu, channels: number): BoundedProduct {
  if (input.kind === "vector") return { y: Float64Array.from(input.x), bound: new Float64Array(channels) };
  if (input.kind === "attention") return attentionOnCpu(input, channels);
  const { x, weight, epsilon } = input;
  const factor = 1 / Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / channels + epsilon);
  const y = Float64Array.from(x, (value, c) => value * weight[c] * factor);
  // Squares are summed along threads and then across them; half of what that rounds reaches the root.
  return { y, bound: y.map((value) => (16 + channels / 512) * ROUNDING * Math.abs(value)) };
}

function attentionOnCpu(
  { partials, splits, headSize }: ValuesOnCpu & { kind: "attention" },
  channels: number,
): BoundedProduct {
  const heads = channels / headSize;
  const y = new Float64Array(channels);
  const bound = new Float64Array(channels);
  const used = (head: number) =>
    Array.from({ length: splits }, (_, split) => {
      const pair = splits * channels + 2 * (split * heads + head);
      return { split, m: partials[pair], l: partials[pair + 1] };
    }).filter(({ l }) => l !== 0);
  for (let c = 0; c < channels; c++) {
    const parts = used(Math.floor(c / headSize));
    const largest = Math.max(...parts.map(({ m }) => m));
    let [sum, total, magnitude] = [0, 0, 0];
    for (const { split, m, l } of parts) {
      const share = Math.exp(m - largest);
      // WGSL lets exp(x) be 3 + 2 |x| units off, and shares pass through two of them.
      const term = share * partials[split * channels + c];
      sum += term;
      total += share * l;
      magnitude += Math.abs(term) * (16 + splits + 8 * Math.abs(m - largest));
    }
    if (parts.length === 0) continue;
    y[c] = sum / total;
    bound[c] = ROUNDING * (magnitude / total + Math.abs(y[c]) * (32 + splits + 8 * 16));
  }
  return { y, bound };
}

/** What a kernel makes of a product of one token. `before` is y before an `add`. */
export function outputOnCpu(
  kind: Epilogue["kind"],
  product: BoundedProduct,
  before: ArrayLike<number>,
): BoundedProduct {
  if (kind === "store") return product;
  if (kind === "silu_product") return siluProductOnCpu(product);
  const y = product.y.map((value, i) => value + before[i]);
  return { y, bound: product.bound.map((value, i) => value + ROUNDING * (Math.abs(y[i]) + value)) };
}

function siluProductOnCpu({ y: rows, bound: errors }: BoundedProduct): BoundedProduct {
  const outputs = rows.length / 2;
  const y = new Float64Array(outputs);
  const bound = new Float64Array(outputs);
  for (let i = 0; i < outputs; i++) {
    const silu = rows[i] / (1 + Math.exp(-rows[i]));
    const up = rows[i + outputs];
    // The slope of silu is at most 1.1; exp is 3 + 2 |x| units off at most.
    const siluError = 1.1 * errors[i] + (16 + 4 * Math.abs(rows[i])) * ROUNDING * Math.abs(silu);
    y[i] = silu * up;
    bound[i] = siluError * (Math.abs(up) + errors[i + outputs]) + Math.abs(silu) * errors[i + outputs] +
      4 * ROUNDING * Math.abs(y[i]);
  }
  return { y, bound };
}
