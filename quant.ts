/**
 * The method without a model around it: f32 matrices to 2 and 4 bits (and 16 for outliers) and back. Pure functions of typed
 * arrays, for any JavaScript platform.
 *
 * ```ts
 * import { dequantize, packedBits, quantizeTwobit, SETTINGS } from "@twobit/twobit/quant";
 * import { assert } from "@std/assert";
 *
 * const [rows, channels] = [32, 256];
 * const weights = Float32Array.from({ length: rows * channels }, (_, i) => Math.sin(i));
 * const packed = quantizeTwobit(weights, rows, channels, { ...SETTINGS, refineEvery: 4 });
 * const decoded = dequantize(packed);
 * const bits = Object.values(packedBits(rows, channels, 4, 0)).reduce((sum, part) => sum + part, 0);
 * assert(decoded.length === weights.length && bits / weights.length === 3.0625);
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
export type { PickRule } from "./quant/refine_pick.ts";
export { quantizeTwobit, type TwobitSettings } from "./quant/twobit.ts";
export type { Outliers, UnpackedTensor } from "./quant/unpacked_tensor.ts";
