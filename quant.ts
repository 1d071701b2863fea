/**
 * The method without a model around it: f32 matrices to 2 and 4 bits (and 16 for outliers) and back. Pure functions of typed
 * arrays, for any JavaScript platform.
 *
 * ```ts
 * import { dequantize, pack, packedBits, quantizeTwobit, SETTINGS, unpack, validatePackedTensor } from "@twobit/twobit/quant";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const [rows, channels] = [32, 256];
 * const weights = Float32Array.from({ length: rows * channels }, (_, i) => Math.sin(i));
 * const packed = quantizeTwobit(weights, rows, channels, { ...SETTINGS, refineEvery: 4 });
 * const squares = (values: Float32Array) => values.reduce((sum, value) => sum + value * value, 0);
 * assert(squares(dequantize(packed).map((value, i) => value - weights[i])) < 0.1 * squares(weights));
 *
 * const bits = Object.values(packedBits(rows, channels, 4, 0)).reduce((sum, part) => sum + part, 0);
 * assertEquals(bits / weights.length, 3.0625);
 *
 * // One array element a code, to look at or to change; and the planes again.
 * const codes = unpack(packed);
 * assert(codes.codes.every((code, i) => code < (codes.refined[i >> 4] ? 16 : 4)));
 * assertEquals(pack(codes), packed);
 * validatePackedTensor(packed); // throws where a rule of the format is broken
 * ```
 *
 * With the Hessian of a layer's inputs, later channels make up for the errors of earlier ones:
 *
 * ```ts
 * import { FEEDBACK, prepareFeedback, quantizeTwobit, SETTINGS } from "@twobit/twobit/quant";
 * import { assertEquals } from "@std/assert";
 *
 * const [rows, channels] = [16, 128];
 * const weights = Float32Array.from({ length: rows * channels }, (_, i) => Math.cos(i));
 * const hessian = new Float64Array(channels * channels);
 * for (let t = 0; t < 256; t++) {
 *   const x = Float64Array.from({ length: channels }, (_, c) => Math.sin(t * c + t));
 *   hessian.forEach((sum, i) => hessian[i] = sum + x[Math.floor(i / channels)] * x[i % channels]);
 * }
 * const feedback = prepareFeedback(hessian, FEEDBACK);
 * assertEquals(quantizeTwobit(weights, rows, channels, SETTINGS, { feedback }).rows, rows);
 * ```
 *
 * @module
 */
export { type BitTerms, packedBits } from "./quant/bits.ts";
export { dequantize } from "./quant/dequantize.ts";
export { type Feedback, type FeedbackSettings, prepareFeedback } from "./quant/error_feedback.ts";
export {
  BASE_ZEROS,
  BLOCK_GROUPS,
  FORMAT_VERSION,
  GROUP_CHANNELS,
  HALF_BLOCK_GROUPS,
  REFINE_EVERY,
  REFINED_ZEROS,
  type RefineEvery,
  TILE_ROWS,
} from "./quant/format.ts";
export type { InputKnowledge } from "./quant/input_knowledge.ts";
export type { OutlierSettings } from "./quant/outliers.ts";
export { pack, unpack } from "./quant/pack.ts";
export { type PackedTensor, validatePackedTensor } from "./quant/packed_tensor.ts";
export { FEEDBACK, SETTINGS } from "./quant/recipe.ts";
export type { Part } from "./quant/quantizer.ts";
export type { PickRule } from "./quant/refine_pick.ts";
export { quantizeTwobit, type TwobitPart, type TwobitSettings } from "./quant/twobit.ts";
export type { Outliers, UnpackedTensor } from "./quant/unpacked_tensor.ts";
