// What windows go through a model in while it is tuned, and what gradients come back in.
import type { KeyValueCache } from "../../kernels/attention/key_value_cache.ts";
import { partialsBytes } from "../../kernels/backward/norm_backward.ts";
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { whole } from "../../kernels/gpu/plane.ts";
import { createTokenRange, type TokenRange } from "../../kernels/tokens/token_range.ts";
import { mostJoined } from "../engine/joined_attention.ts";
import { createStageBuffers, type PassBuffers } from "../engine/layer_operations.ts";
import type { ModelConfig } from "../llama/config.ts";
import { STAGES, stageShape } from "../llama/layer.ts";
import { rotationTable } from "../llama/rope.ts";
import { evenShare, splitWindows } from "./tuning_plan.ts";

/** How many windows go side by side, each padded to the same length. */
export interface PassShape {
  readonly windows: number;
  /** Tokens of each, a multiple of 64, so that each begins where bindings may. */
  readonly windowTokens: number;
  /** Tokens of the longest one without padding. */
  readonly longest: number;
}

/** Tokens of a window are padded to a multiple of this. */
const PADDED_TOKENS = 64;

/** The shape of passes for steps on windows of these lengths. @param batchWindows of a step, at most */
export function passShape(gpu: Gpu, config: ModelConfig, lengths: readonly number[], batchWindows: number): PassShape {
  const longest = Math.max(...lengths);
  const windowTokens = Math.ceil(longest / PADDED_TOKENS) * PADDED_TOKENS;
  const most = Math.floor(mostJoined(config, gpu.device.limits.maxStorageBufferBindingSize) / windowTokens);
  const stepWindows = evenShare(splitWindows(lengths).tuned.length, batchWindows);
  return { windows: evenShare(stepWindows, Math.max(1, most)), windowTokens, longest };
}

export interface TuningBuffers extends PassBuffers, PassShape {
  readonly range: TokenRange;
  readonly windowRange: TokenRange;
  /** f32 [T, headSize / 2, 2]. */
  readonly rotations: GPUBuffer;
  /** Keys and values, a sequence for each window. */
  readonly cache: KeyValueCache;
  /** f32 [W, T, hidden] for each layer: its input. */
  readonly inputs: readonly GPUBuffer[];
  /** f32 [W, T, (heads + 2 keyValueHeads) * headSize]: the qkv product, where heads have norms; else `qkv`. */
  readonly qkvBefore: GPUBuffer;
  /** f32 [W, T]: how much each token counts, 0 for padding. */
  readonly weights: GPUBuffer;
  /** f32 [W, T]: divergence of each token, times its weight. */
  readonly divergences: GPUBuffer;
  /** f32 [W, T, hidden]: gradient of the residual stream. */
  readonly hiddenGradient: GPUBuffer;
  /** f32 [W, T, hidden]: of a norm's output. */
  readonly normedGradient: GPUBuffer;
  /** f32 [W, T, heads * headSize]: of attention's output. */
  readonly mixedGradient: GPUBuffer;
  /** f32 [W, T, (heads + 2 keyValueHeads) * headSize]: of rotated q, rotated k and v, then of the product. */
  readonly qkvGradient: GPUBuffer;
  /** f32 [W, T, intermediate]: of silu(gate) * up. */
  readonly innerGradient: GPUBuffer;
  /** f32 [W, heads, T, 2]: see `attentionBackward`. */
  readonly statistics: GPUBuffer;
  /** f32: partial sums of norms' gradients. */
  readonly partials: GPUBuffer;
  /** f32 [rows, channels] of the largest stage: gradient of weights, zero but while it is made. */
  readonly weightGradient: GPUBuffer;
}

/** Makes the buffers. @throws {OutOfMemoryError} when the device has no room */
export async function createTuningBuffers(
  gpu: Gpu,
  scope: BufferScope,
  config: ModelConfig,
  shape: PassShape,
): Promise<TuningBuffers> {
  const { windows, windowTokens } = shape;
  const { hidden, heads, keyValueHeads, headSize, intermediate, rope, queryKeyNorm, layers } = config;
  const tokens = windows * windowTokens;
  const make = (label: string, width: number) => scope.storage(label, 4 * tokens * width);
  const range = async (windows: number) => {
    const made = await createTokenRange(gpu, windows * windowTokens, windows);
    scope.own(made.buffer);
    return made;
  };
  const qkvWidth = (heads + 2 * keyValueHeads) * headSize;
  const plane = async (label: string) => whole(await scope.storage(label, 2 * tokens * keyValueHeads * headSize));
  const stages = await createStageBuffers(scope, config, tokens);
  const inputs: GPUBuffer[] = [];
  for (let layer = 0; layer < layers; layer++) inputs.push(await make("layer input", hidden));
  return {
    ...stages,
    ...shape,
    range: await range(windows),
    windowRange: await range(1),
    normed: await make("normed", hidden),
    mixed: await make("mixed", heads * headSize),
    rotations: await scope.upload("rotations", rotationTable(rope, headSize, windowTokens, shape.longest)),
    cache: { capacity: windowTokens, keys: await plane("keys"), values: await plane("values") },
    inputs,
    qkvBefore: queryKeyNorm ? await make("qkv product", qkvWidth) : stages.qkv,
    weights: await make("token weights", 1),
    divergences: await make("divergences", 1),
    hiddenGradient: await make("hidden gradient", hidden),
    normedGradient: await make("normed gradient", hidden),
    mixedGradient: await make("mixed gradient", heads * headSize),
    qkvGradient: await make("qkv gradient", qkvWidth),
    innerGradient: await make("inner gradient", intermediate),
    statistics: await make("attention statistics", 2 * heads),
    partials: await scope.storage("partials", partialsBytes(tokens, hidden)),
    weightGradient: await scope.storage("weight gradient", 4 * largestStage(config)),
  };
}

export function largestStage(config: ModelConfig): number {
  return Math.max(...STAGES.map((stage) => stageShape(config, stage)).map(([rows, channels]) => rows * channels));
}
