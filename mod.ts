/**
 * twobit: mixed 2/4/16-bit weight quantization of Llama-family models, packed and memory-aligned.
 *
 * ```ts
 * import { dequantize, quantizeTwobit, SETTINGS } from "./mod.ts";
 *
 * const weights = Float32Array.from({ length: 16 * 128 }, (_, i) => Math.sin(i));
 * const packed = quantizeTwobit(weights, 16, 128, SETTINGS);
 * const decoded = dequantize(packed);
 * console.assert(decoded.length === weights.length);
 * ```
 *
 * An engine runs a model on the GPU, a text at a time or up to 16 together:
 *
 * ```ts
 * import { loadEngine } from "./mod.ts";
 *
 * using engine = await loadEngine("tiny");
 * const prompts = ["Fellow citizens", "The Congress"];
 * const texts = ["", ""];
 * for await (const { index, text } of engine.generateBatch(prompts, { maxTokens: 8 })) texts[index] += text;
 * let alone = "";
 * for await (const piece of engine.generate(prompts[0], { maxTokens: 8 })) alone += piece;
 * console.assert(texts[0] === alone);
 * const tokens = engine.tokenizer.encode(alone);
 * const [logits] = await engine.logits(tokens, [tokens.length - 1]);
 * console.assert(logits.length === engine.config.vocabulary);
 * ```
 *
 * @module
 */
export * from "./quant/baselines/strips.ts";
export * from "./quant/bits.ts";
export * from "./quant/concatenate.ts";
export * from "./quant/dequantize.ts";
export * from "./quant/error_feedback.ts";
export * from "./quant/format.ts";
export * from "./quant/grid.ts";
export type { GroupProblem } from "./quant/group_search.ts";
export * from "./quant/input_knowledge.ts";
export * from "./quant/outliers.ts";
export * from "./quant/pack.ts";
export * from "./quant/baselines/q2k.ts";
export * from "./quant/packed_tensor.ts";
export * from "./quant/probe.ts";
export * from "./quant/quantize.ts";
export * from "./quant/quantizer.ts";
export * from "./quant/baselines/quantize_q2k.ts";
export * from "./quant/random.ts";
export * from "./quant/refine_pick.ts";
export * from "./quant/report.ts";
export * from "./quant/baselines/strip_layout.ts";
export * from "./quant/baselines/strip_scales.ts";
export * from "./quant/baselines/strip_tensor.ts";
export * from "./quant/twobit.ts";
export * from "./quant/unpacked_tensor.ts";

export * from "./kernels/gpu/adapter.ts";
export { DeviceLostError, OutOfMemoryError } from "./kernels/gpu/device_errors.ts";
export type { DeviceProfile } from "./kernels/gpu/device_profile.ts";
export { withEnableLines } from "./kernels/gpu/dialect.ts";
export * from "./kernels/matrix/f16_matrix.ts";
export * from "./kernels/gpu/gpu.ts";
export * from "./kernels/attention/key_value_cache.ts";
export type { HostMatrix, WeightMatrix } from "./kernels/product/weight_format.ts";
export * from "./kernels/matrix/packed_matrix.ts";
export type { LayerArena } from "./kernels/matrix/share_planes.ts";
export * from "./kernels/gpu/plane.ts";
export type { Shader } from "./kernels/gpu/shader.ts";
export * from "./kernels/tokens/pick_token.ts";
export * from "./kernels/tokens/prefill_range.ts";

export * from "./model/llama/architectures.ts";
export * from "./model/llama/attention.ts";
export * from "./model/files/byte_source.ts";
export * from "./model/quantize/calibration.ts";
export * from "./model/quantize/calibrator.ts";
export * from "./model/text/chat.ts";
export * from "./model/files/checkpoint.ts";
export * from "./model/files/checkpoint_folder.ts";
export * from "./model/evaluate/choices.ts";
export * from "./model/llama/config.ts";
export type { DecodeStep } from "./model/engine/decode_step.ts";
export { MAX_SEQUENCES } from "./model/engine/decode_step.ts";
export type { Operation, OperationKind } from "./model/engine/layer_operations.ts";
export * from "./model/quantize/device_limits.ts";
export * from "./model/engine/engine.ts";
export * from "./model/evaluate/engine_scorer.ts";
export * from "./model/engine/engine_weights.ts";
export * from "./model/evaluate/evaluation.ts";
export * from "./model/files/file_source.ts";
export * from "./model/llama/forward.ts";
export * from "./model/engine/generate.ts";
export * from "./model/files/gguf_checkpoint.ts";
export * from "./model/files/gguf_file.ts";
export * from "./model/files/gguf_types.ts";
export * from "./model/hub/hub_model.ts";
export * from "./model/hub/hub_repo.ts";
export * from "./model/hub/hub_settings.ts";
export * from "./model/files/huggingface_writer.ts";
export * from "./model/llama/layer.ts";
export * from "./model/llama/llama.ts";
export * from "./model/load.ts";
export * from "./model/load_engine.ts";
export * from "./model/llama/matmul.ts";
export * from "./model/llama/matmul_simd.ts";
export * from "./model/files/open_directory.ts";
export * from "./model/files/open_packed.ts";
export * from "./model/files/packed_checkpoint.ts";
export * from "./model/files/packed_file.ts";
export * from "./model/quantize/packed_writer.ts";
export * from "./model/quantize/cpu_device.ts";
export * from "./model/quantize/gpu_device.ts";
export * from "./model/quantize/quantize_layers.ts";
export * from "./model/quantize/quantizing_device.ts";
export * from "./model/quantize_file.ts";
export * from "./model/evaluate/questions.ts";
export * from "./model/engine/random_source.ts";
export * from "./quant/recipe.ts";
export * from "./model/files/safetensors.ts";
export * from "./model/files/safetensors_writer.ts";
export * from "./model/files/tensor_layout.ts";
export * from "./model/evaluate/score.ts";
export * from "./model/evaluate/scorer.ts";
export { cacheBytes } from "./model/engine/sequence_cache.ts";
export * from "./model/engine/session.ts";
export * from "./model/llama/shapes.ts";
export * from "./model/engine/speed.ts";
export * from "./model/host/statistics.ts";
export * from "./model/evaluate/tasks.ts";
export * from "./model/text/text.ts";
export type { OnLogits, TokenScores } from "./model/engine/token_scores.ts";
export * from "./model/text/tokenizer.ts";
export * from "./model/engine/weight_source.ts";
export * from "./model/text/windows.ts";
export * from "./model/host/worker_pool.ts";
export * from "./model/quantize/quantize_tasks.ts";
export * from "./model/workers/cpu_pool.ts";
export * from "./model/workers/quantizing_place.ts";
export type { CpuTasks } from "./model/workers/cpu_worker.ts";
