// Data and yardsticks that several tests of quant/ use.
import { GROUP_CHANNELS, groupsPerRow, type RefineEvery, TILE_ROWS } from "../../quant/format.ts";
import { type PackedTensor, planeLengths, type PlaneName } from "../../quant/packed_tensor.ts";
import { createRandom } from "../../quant/random.ts";
import type { TwobitSettings } from "../../quant/twobit.ts";
import { NO_OUTLIERS, type Outliers, type UnpackedTensor } from "../../quant/unpacked_tensor.ts";
import { assert, assertEquals } from "../assert.ts";

/** The format's default density, no outliers. */
export const SETTINGS: TwobitSettings = {
  refineEvery: 8,
  pick: "error",
  outliers: { share: 0, groups: "two_bit", rule: "error" },
  seed: 1,
};

/** Seeded normal numbers. */
export function normals(seed: number, length: number, scale = 1): Float32Array<ArrayBuffer> {
  const random = createRandom(seed);
  return Float32Array.from({ length }, () => scale * random.normal());
}

/** Sum of x xᵀ over samples x of correlated inputs; singular where there are fewer samples than channels. */
export function correlatedHessian(seed: number, channels: number, samples = 4 * channels): Float64Array<ArrayBuffer> {
  const random = createRandom(seed);
  const hessian = new Float64Array(channels * channels);
  const gains = Float64Array.from({ length: channels }, () => 0.3 + 2 * random.uniform());
  for (let sample = 0; sample < samples; sample++) {
    let common = 0;
    const x = Float64Array.from(gains, (gain) => gain * (common = 0.8 * common + 0.6 * random.normal()));
    for (let i = 0; i < channels; i++) for (let j = 0; j < channels; j++) hessian[i * channels + j] += x[i] * x[j];
  }
  return hessian;
}

/** (w - q) H (w - q)ᵀ, summed over rows. */
export function objective(weights: Float32Array, decoded: Float32Array, hessian: Float64Array): number {
  const channels = Math.sqrt(hessian.length);
  let sum = 0;
  for (let row = 0; row < weights.length; row += channels) {
    for (let i = 0; i < channels; i++) {
      for (let j = 0; j < channels; j++) {
        sum += (weights[row + i] - decoded[row + i]) * hessian[i * channels + j] *
          (weights[row + j] - decoded[row + j]);
      }
    }
  }
  return sum;
}

/** Sum of squared differences. */
export function squaredError(weights: Float32Array, decoded: Float32Array): number {
  assertEquals(decoded.length, weights.length);
  return weights.reduce((sum, weight, i) => sum + (weight - decoded[i]) ** 2, 0);
}

/** Asserts that no element is NaN or infinite. */
export function assertFinite(values: ArrayLike<number>): void {
  for (let i = 0; i < values.length; i++) assert(Number.isFinite(values[i]), `element ${i} is ${values[i]}`);
}

/** Asserts that two typed arrays of one kind hold the same bits. */
export function assertSameBits(actual: ArrayBufferView, expected: ArrayBufferView, name = "array"): void {
  assertEquals(actual.constructor.name, expected.constructor.name, name);
  assertEquals(actual.byteLength, expected.byteLength, `bytes of ${name}`);
  const [a, b] = [actual, expected].map((view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
  const at = a.findIndex((byte, i) => byte !== b[i]);
  assert(at < 0, `${name} differs at byte ${at}: ${a[at]}, must be ${b[at]}`);
}

/** Names of the planes of a packed tensor. */
export const PLANES = Object.keys(planeLengths(1, 1, "none", 0)) as PlaneName[];

/** Asserts that two packed tensors are the same, bit for bit. */
export function assertSameTensor(actual: PackedTensor, expected: PackedTensor): void {
  for (const name of ["rows", "channels", "refineEvery"] as const) assertEquals(actual[name], expected[name], name);
  for (const name of PLANES) assertSameBits(actual[name], expected[name], name);
}

/** Any legal codes: every code, scale, zero and pick is equally likely; scales of any finite f16 bits. */
export function randomUnpacked(
  seed: number,
  rows: number,
  channels: number,
  refineEvery: RefineEvery,
  outlierShare: number,
): UnpackedTensor {
  const random = createRandom(seed);
  const groups = groupsPerRow(channels);
  const refined = new Uint8Array(rows * groups);
  if (refineEvery !== "none") {
    for (let row = 0; row < rows; row++) {
      for (let start = 0; start < groups; start += refineEvery) {
        const size = Math.min(refineEvery, groups - start);
        const pick = random.integer(size < refineEvery ? size + 1 : size);
        if (pick < size) refined[row * groups + start + pick] = 1;
      }
    }
  }
  const below = (length: number, bound: number) => Uint8Array.from({ length }, () => random.integer(bound));
  const codes = below(rows * groups * GROUP_CHANNELS, 16);
  refined.forEach((isRefined, group) => {
    if (isRefined) return;
    for (let i = 0; i < GROUP_CHANNELS; i++) codes[group * GROUP_CHANNELS + i] &= 3;
  });
  return {
    rows,
    channels,
    refineEvery,
    codes,
    scaleCodes: below(rows * groups, 16),
    zeroCodes: below(rows * groups, 8),
    refined,
    tileScale: finiteHalves(random.integer(2 ** 32), Math.ceil(rows / TILE_ROWS) * groups),
    outliers: randomOutliers(random.integer(2 ** 32), rows, channels, outlierShare),
  };
}

/** f16 of any finite bits, subnormals, negative numbers and both zeros among them. */
function finiteHalves(seed: number, length: number): Float16Array<ArrayBuffer> {
  const random = createRandom(seed);
  // 31 exponents: the 32nd is that of infinity and NaN.
  return new Float16Array(
    Uint16Array.from({ length }, () => random.integer(2) << 15 | random.integer(31) << 10 | random.integer(1024))
      .buffer,
  );
}

function randomOutliers(seed: number, rows: number, channels: number, share: number): Outliers {
  const random = createRandom(seed);
  const channel: number[] = [];
  const start = [0];
  for (let row = 0; row < rows; row++) {
    for (let c = 0; c < channels; c++) if (random.uniform() < share) channel.push(c);
    start.push(channel.length);
  }
  if (channel.length === 0) return NO_OUTLIERS;
  return {
    start: Uint32Array.from(start),
    channel: Uint16Array.from(channel),
    residual: finiteHalves(seed + 1, channel.length),
  };
}
