/**
 * The shaders of this room.
 *
 * @module
 */
import { tokenShaders } from "../tokens/shaders.ts";
import { createShaders } from "../gpu/shader.ts";
import addOutliers from "./add_outliers.wgsl" with { type: "text" };
import combineAttention from "./combine_attention.wgsl" with { type: "text" };
import dequantizeWeights from "./dequantize_weights.wgsl" with { type: "text" };
import f16Gemm from "./f16_gemm.wgsl" with { type: "text" };
import f16Gemv from "./f16_gemv.wgsl" with { type: "text" };
import fusedGemm from "./fused_gemm.wgsl" with { type: "text" };
import fusedGemv from "./fused_gemv.wgsl" with { type: "text" };
import fusedSyncGemv from "./fused_sync_gemv.wgsl" with { type: "text" };
import joinSplits from "./join_splits.wgsl" with { type: "text" };
import attentionValues from "./parts/attention_values.wgsl" with { type: "text" };
import cells from "./parts/cells.wgsl" with { type: "text" };
import combineSplits from "./parts/combine_splits.wgsl" with { type: "text" };
import decode from "./parts/decode.wgsl" with { type: "text" };
import fillPacked from "./parts/fill_packed.wgsl" with { type: "text" };
import fillValues from "./parts/fill_values.wgsl" with { type: "text" };
import floatChunks from "./parts/float_chunks.wgsl" with { type: "text" };
import gemmEdges from "./parts/gemm_edges.wgsl" with { type: "text" };
import group from "./parts/group.wgsl" with { type: "text" };
import halfChunks from "./parts/half_chunks.wgsl" with { type: "text" };
import inputValues from "./parts/input_values.wgsl" with { type: "text" };
import narrowTile from "./parts/narrow_tile.wgsl" with { type: "text" };
import oneInput from "./parts/one_input.wgsl" with { type: "text" };
import oneMatrix from "./parts/one_matrix.wgsl" with { type: "text" };
import outliers from "./parts/outliers.wgsl" with { type: "text" };
import outputs from "./parts/outputs.wgsl" with { type: "text" };
import quantize from "./parts/quantize.wgsl" with { type: "text" };
import refine from "./parts/refine.wgsl" with { type: "text" };
import rows from "./parts/rows.wgsl" with { type: "text" };
import steps from "./parts/steps.wgsl" with { type: "text" };
import wideTile from "./parts/wide_tile.wgsl" with { type: "text" };

/** Shaders of kernels/product. */
export const productShaders = createShaders({
  add_outliers: addOutliers,
  combine_attention: combineAttention,
  dequantize_weights: dequantizeWeights,
  f16_gemm: f16Gemm,
  f16_gemv: f16Gemv,
  fused_gemm: fusedGemm,
  fused_gemv: fusedGemv,
  fused_sync_gemv: fusedSyncGemv,
  join_splits: joinSplits,
}, {
  ...tokenShaders.parts,
  attention_values: attentionValues,
  cells,
  combine_splits: combineSplits,
  decode,
  fill_packed: fillPacked,
  fill_values: fillValues,
  float_chunks: floatChunks,
  gemm_edges: gemmEdges,
  group,
  half_chunks: halfChunks,
  input_values: inputValues,
  narrow_tile: narrowTile,
  one_input: oneInput,
  one_matrix: oneMatrix,
  outliers,
  outputs,
  quantize,
  refine,
  rows,
  steps,
  wide_tile: wideTile,
});
