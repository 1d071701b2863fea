// Comparing results of many products in turn with the CPU reference: as near as references are whose inputs are jittered.
import type { CacheBits } from "../../kernels/attention/key_value_cache.ts";
import { activationsOf, packActivations } from "../../kernels/product/pack_activations.ts";
import type { Layer } from "../../model/llama/llama.ts";
import { type MatMul, type MatrixView, rowMajor } from "../../model/llama/matmul.ts";
import { createRandom } from "../../quant/random.ts";
import { assert } from "../assert.ts";
import { matmulPlain } from "../model/llama/matmul_plain.ts";

/** The rows of a view, changed one by one. */
function mapRows(x: MatrixView, change: (row: Float32Array) => ArrayLike<number>): MatrixView {
  const data = new Float32Array(x.rows * x.columns);
  for (let t = 0; t < x.rows; t++) {
    const at = (k: number) => x.data[x.offset + t * x.rowStride + k * x.columnStride];
    data.set(change(Float32Array.from({ length: x.columns }, (_, k) => at(k))), t * x.columns);
  }
  return rowMajor(data, x.rows, x.columns);
}

/** The plain product, of some layers' weights with inputs as `packActivations` rounds them to 8 bits. */
export function roundInputs(layers: readonly Layer[]): MatMul {
  const weights = new Set(layers.flatMap(({ linears }) => Object.values(linears).map((linear) => linear.weights)));
  const round = (row: Float32Array) => activationsOf(packActivations(row, 8), row.length, 8).values;
  return (x, w, y) => matmulPlain(weights.has(w.data) ? mapRows(x, round) : x, w, y);
}

/**
 * A product of inputs that are jittered by as much as the coarsest rounding of the kernels beside those of the
 * product's own, that of keys and values to f16 or bytes, makes of the largest channel of a group.
 */
export function jitter(seed: number, multiply: MatMul = matmulPlain, cacheBits: CacheBits = 16): MatMul {
  const share = cacheBits === 8 ? 2 ** -8 : 2 ** -12;
  const random = createRandom(seed);
  const jitterRow = (row: Float32Array) => {
    const jittered = new Float32Array(row.length);
    for (let first = 0; first < row.length; first += 16) {
      const group = row.subarray(first, first + 16);
      const largest = group.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      for (const [i, value] of group.entries()) {
        jittered[first + i] = value + (2 * random.uniform() - 1) * share * largest;
      }
    }
    return jittered;
  };
  return (x, w, y) => multiply(mapRows(x, jitterRow), w, y);
}

/** The largest distance of two elements; NaN where one is. */
export function furthest(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < b.length; i++) {
    const distance = Math.abs(a[i] - b[i]);
    if (!(distance <= most)) most = distance; // NaN stays
    if (Number.isNaN(most)) return NaN;
  }
  return most;
}

/** Asserts that a result is as near to the reference as jittered references are; these move by about as much each. */
export function assertAsNear(
  actual: ArrayLike<number>,
  exact: Float32Array,
  jittered: readonly Float32Array[],
  what: string,
) {
  const tolerance = 4 * Math.max(...jittered.map((other) => furthest(other, exact)));
  const distance = furthest(actual, exact);
  assert(distance <= tolerance, `${what} is ${distance} from the reference, must be within ${tolerance}`);
}
