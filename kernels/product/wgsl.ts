/**
 * The WGSL files of this room by name, with those of the rooms below it.
 *
 * @module
 */
export * from "../tokens/wgsl.ts";
export { default as add_outliers } from "./add_outliers.wgsl" with { type: "text" };
export { default as combine_attention } from "./combine_attention.wgsl" with { type: "text" };
export { default as dequantize_weights } from "./dequantize_weights.wgsl" with { type: "text" };
export { default as f16_gemm } from "./f16_gemm.wgsl" with { type: "text" };
export { default as f16_gemv } from "./f16_gemv.wgsl" with { type: "text" };
export { default as fused_gemm } from "./fused_gemm.wgsl" with { type: "text" };
export { default as fused_gemv } from "./fused_gemv.wgsl" with { type: "text" };
export { default as fused_sync_gemv } from "./fused_sync_gemv.wgsl" with { type: "text" };
export { default as join_splits } from "./join_splits.wgsl" with { type: "text" };
export { default as attention_values } from "./parts/attention_values.wgsl" with { type: "text" };
export { default as cells } from "./parts/cells.wgsl" with { type: "text" };
export { default as combine_splits } from "./parts/combine_splits.wgsl" with { type: "text" };
export { default as decode } from "./parts/decode.wgsl" with { type: "text" };
export { default as fill_packed } from "./parts/fill_packed.wgsl" with { type: "text" };
export { default as fill_values } from "./parts/fill_values.wgsl" with { type: "text" };
export { default as float_chunks } from "./parts/float_chunks.wgsl" with { type: "text" };
export { default as gemm_edges } from "./parts/gemm_edges.wgsl" with { type: "text" };
export { default as group } from "./parts/group.wgsl" with { type: "text" };
export { default as half_chunks } from "./parts/half_chunks.wgsl" with { type: "text" };
export { default as input_values } from "./parts/input_values.wgsl" with { type: "text" };
export { default as narrow_tile } from "./parts/narrow_tile.wgsl" with { type: "text" };
export { default as one_input } from "./parts/one_input.wgsl" with { type: "text" };
export { default as one_matrix } from "./parts/one_matrix.wgsl" with { type: "text" };
export { default as outliers } from "./parts/outliers.wgsl" with { type: "text" };
export { default as outputs } from "./parts/outputs.wgsl" with { type: "text" };
export { default as quantize } from "./parts/quantize.wgsl" with { type: "text" };
export { default as refine } from "./parts/refine.wgsl" with { type: "text" };
export { default as rows } from "./parts/rows.wgsl" with { type: "text" };
export { default as steps } from "./parts/steps.wgsl" with { type: "text" };
export { default as wide_tile } from "./parts/wide_tile.wgsl" with { type: "text" };
