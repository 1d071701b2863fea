/**
 * Language models of the Llama family in about 2.8 bits a weight, on the GPU by WebGPU: load one, generate text, look into its
 * files. `./quant` has the method, `./files` the file formats, `./kernels` the GPU's products.
 *
 * An engine has a model on the GPU and takes one text or up to 128 together. `tiny` is embedded in the repository; a
 * directory, a packed file, a GGUF file or `hf:ORG/NAME` go the same way:
 *
 * ```ts
 * import { loadEngine } from "@twobit/twobit";
 * import { assert } from "@std/assert";
 *
 * using engine = await loadEngine("tiny");
 * const prompts = ["Fellow citizens", "The Congress"];
 * const texts = ["", ""];
 * for await (const { index, text } of engine.generateBatch(prompts, { maxTokens: 8 })) texts[index] += text;
 * let alone = "";
 * for await (const piece of engine.generate(prompts[0], { maxTokens: 8 })) alone += piece;
 * assert(texts[0] === alone);
 * ```
 *
 * A session is one or several sequences of tokens, step by step:
 *
 * ```ts
 * import { Engine, loadEngine, Session } from "@twobit/twobit";
 * import { assert } from "@std/assert";
 *
 * using engine = await loadEngine("tiny");
 * using session = await engine.createSession(64, 2);
 * assert(engine instanceof Engine && session instanceof Session);
 * const first = await session.prefill(["Fellow citizens", "The Congress"].map(engine.tokenizer.encode));
 * const [others] = await session.decode([0], 4); // of the first sequence; the other stays as it is
 * assert(engine.tokenizer.decode([first[0], ...others]).length > 0);
 * ```
 *
 * Engines can share a device. What it can't do, it says by errors of its own:
 *
 * ```ts
 * import { DeviceLostError, Gpu, loadEngine, openGpu, OutOfMemoryError } from "@twobit/twobit";
 * import { assert } from "@std/assert";
 *
 * using gpu = await openGpu();
 * assert(gpu instanceof Gpu && gpu.adapterName !== "");
 * try {
 *   using engine = await loadEngine("tiny", { gpu });
 *   assert(gpu.heldBytes > 0 && engine.gpu === gpu);
 * } catch (error) {
 *   if (error instanceof OutOfMemoryError) console.log(`needs ${error.neededBytes} bytes`);
 *   else if (error instanceof DeviceLostError) console.log("the driver reset the device");
 *   else throw error;
 * }
 * ```
 *
 * Dawn, Chrome's WebGPU, reaches matrix units that Deno's own doesn't. It is in the npm package `webgpu`, which is large
 * and optional:
 *
 * ```ts
 * import { openDawn, openGpu } from "@twobit/twobit";
 * import { assertEquals } from "@std/assert";
 *
 * const webgpu = await openDawn();
 * if (await webgpu.requestAdapter()) {
 *   using gpu = await openGpu({ webgpu });
 *   assertEquals(gpu.capabilities.implementation, "Dawn");
 * }
 * ```
 *
 * @module
 */
export { DeviceLostError, OutOfMemoryError } from "./kernels/gpu/device_errors.ts";
export { Gpu, type GpuOptions, openGpu } from "./kernels/gpu/gpu.ts";
export type { CacheBits } from "./kernels/attention/key_value_cache.ts";
export type { ActivationBits } from "./kernels/product/pack_activations.ts";
export type { Sampling } from "./kernels/tokens/sampler.ts";
export { Engine, type EngineGenerateOptions, type EngineOptions, type Prompt } from "./model/engine/engine.ts";
export type { GenerateOptions, GenerateSummary, TextPiece, TokenPiece } from "./model/engine/generate.ts";
export type { DecodePrecision } from "./model/engine/precision.ts";
export { Session } from "./model/engine/session.ts";
export type { OnLogits, TokenScores } from "./model/engine/token_scores.ts";
export { cpuLogits } from "./model/evaluate/cpu_logits.ts";
export type { Checkpoint } from "./model/files/checkpoint.ts";
export type { DownloadProgress } from "./model/hub/hub_model.ts";
export type { ArchitectureName } from "./model/llama/architectures.ts";
export type { ModelConfig, Rope } from "./model/llama/config.ts";
export type { RopeScaling } from "./model/llama/rope_scaling.ts";
export { openDawn } from "./model/host/dawn.ts";
export { type OpenModel, openModel } from "./model/load.ts";
export { loadEngine } from "./model/load_engine.ts";
export type { StageDensities } from "./model/quantize/choose_densities.ts";
export { quantizeModel, type QuantizeReport } from "./model/quantize_file.ts";
export {
  type CalibrationOptions,
  type MatrixReport,
  NothingToQuantizeError,
  type QuantizeOptions,
  type TuningChoice,
  type UsedCalibration,
} from "./model/quantize_options.ts";
export type { TuningReport } from "./model/tune/tune_model.ts";
export type { PlaceName, QuantizingPlace } from "./model/workers/quantizing_place.ts";
export type { DensityRule, QuantizeMethod } from "./quant/recipe.ts";
export type { QuantizationReport } from "./quant/report.ts";
export type { ChatMessage, ChatOptions, PromptFormat } from "./model/text/chat.ts";
export type { Tokenizer } from "./model/text/tokenizer.ts";
