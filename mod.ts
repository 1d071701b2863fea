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
 * ```
 *
 * @module
 */
export * from "./quant/baseline.ts";
export * from "./quant/bits.ts";
export * from "./quant/concatenate.ts";
export * from "./quant/dequantize.ts";
export * from "./quant/error_feedback.ts";
export * from "./quant/format.ts";
export * from "./quant/grid.ts";
export * from "./quant/input_knowledge.ts";
export * from "./quant/outliers.ts";
export * from "./quant/pack.ts";
export * from "./quant/q2k.ts";
export * from "./quant/packed_tensor.ts";
export * from "./quant/probe.ts";
export * from "./quant/quantize.ts";
export * from "./quant/quantize_q2k.ts";
export * from "./quant/random.ts";
export * from "./quant/refine_pick.ts";
export * from "./quant/report.ts";
export * from "./quant/strip_layout.ts";
export * from "./quant/strip_scales.ts";
export * from "./quant/strip_tensor.ts";
export * from "./quant/twobit.ts";
export * from "./quant/unpacked_tensor.ts";

export * from "./kernels/adapter.ts";
export { DeviceLostError, OutOfMemoryError } from "./kernels/device_errors.ts";
export { withEnableLines } from "./kernels/dialect.ts";
export * from "./kernels/f16_matrix.ts";
export * from "./kernels/gpu.ts";
export * from "./kernels/key_value_cache.ts";
export type { WeightMatrix } from "./kernels/linear.ts";
export * from "./kernels/packed_matrix.ts";
export * from "./kernels/plane.ts";
export * from "./kernels/pick_token.ts";
export * from "./kernels/prefill_range.ts";

export * from "./model/attention.ts";
export * from "./model/batch_session.ts";
export { MAX_SEQUENCES } from "./model/batch_step.ts";
export * from "./model/byte_source.ts";
export * from "./model/calibration.ts";
export * from "./model/calibrator.ts";
export * from "./model/chat.ts";
export * from "./model/checkpoint.ts";
export * from "./model/checkpoint_folder.ts";
export * from "./model/choices.ts";
export * from "./model/config.ts";
export type { DecodeStep, Operation, OperationKind } from "./model/decode_step.ts";
export * from "./model/device_limits.ts";
export * from "./model/engine.ts";
export * from "./model/engine_scorer.ts";
export * from "./model/engine_weights.ts";
export * from "./model/evaluation.ts";
export * from "./model/file_source.ts";
export * from "./model/forward.ts";
export * from "./model/generate.ts";
export * from "./model/generate_batch.ts";
export * from "./model/gguf_checkpoint.ts";
export * from "./model/gguf_file.ts";
export * from "./model/gguf_types.ts";
export * from "./model/hub_model.ts";
export * from "./model/hub_repo.ts";
export * from "./model/hub_settings.ts";
export * from "./model/huggingface_writer.ts";
export * from "./model/llama.ts";
export * from "./model/load.ts";
export * from "./model/load_engine.ts";
export * from "./model/matmul.ts";
export * from "./model/matmul_simd.ts";
export * from "./model/open_directory.ts";
export * from "./model/open_packed.ts";
export * from "./model/packed_checkpoint.ts";
export * from "./model/packed_file.ts";
export * from "./model/packed_writer.ts";
export * from "./model/quantize_model.ts";
export * from "./model/quantize_on_device.ts";
export * from "./model/questions.ts";
export * from "./model/random_source.ts";
export * from "./model/recipe.ts";
export * from "./model/safetensors.ts";
export * from "./model/safetensors_writer.ts";
export * from "./model/score.ts";
export * from "./model/scorer.ts";
export { cacheBytes } from "./model/sequence_cache.ts";
export * from "./model/session.ts";
export * from "./model/shapes.ts";
export * from "./model/speed.ts";
export * from "./model/statistics.ts";
export * from "./model/tasks.ts";
export * from "./model/text.ts";
export type { OnLogits, TokenScores } from "./model/token_scores.ts";
export * from "./model/tokenizer.ts";
export * from "./model/weight_source.ts";
export * from "./model/windows.ts";
export * from "./model/worker_pool.ts";
export type { CpuTasks, QuantizeTask, WindowTask } from "./model/cpu_worker.ts";
