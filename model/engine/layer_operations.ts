// The dispatches of a layer, stage by stage: of one token, with what comes before and after a product in the product's
// dispatch, or of several.
import { addBias } from "../../kernels/tokens/add_bias.ts";
import { decodeAttention, type DecodeAttentionBuffers } from "../../kernels/attention/decode_attention.ts";
import type { AttentionShape, KeyValueCache } from "../../kernels/attention/key_value_cache.ts";
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import type { Epilogue, Prologue } from "../../kernels/product/prologue_epilogue.ts";
import { gemm, type MultiplyFused, type MultiplyRange, takesPairs } from "../../kernels/product/linear.ts";
import type { WeightMatrix } from "../../kernels/product/weight_format.ts";
import type { TokenRange } from "../../kernels/tokens/token_range.ts";
import { rmsNorm } from "../../kernels/tokens/rms_norm.ts";
import { siluProduct } from "../../kernels/tokens/silu_product.ts";
import type { ModelConfig } from "../llama/config.ts";
import { type Stage, STAGES } from "../llama/layer.ts";
import type { EngineLayer, EngineWeights, LayerVectors } from "./engine_weights.ts";

/** What a dispatch of a step is for; "layers" are whole layers at once. */
export type OperationKind = "layers" | "attention" | Stage["name"] | "head" | "pick";

export interface Operation {
  readonly kind: OperationKind;
  readonly dispatches: readonly Dispatch[];
}

export interface LogitBuffers {
  /** f32 [T, hidden]: the residual stream after the last layer. */
  readonly x: GPUBuffer | GPUBufferBinding;
  /** f32 [T, hidden]: after the final norm. */
  readonly normed: GPUBuffer;
  /** f32 [T, rows of the head]. */
  readonly logits: GPUBuffer;
}

/** Dispatches that make logits of rows of the residual stream: the final norm and the head. */
export async function logitDispatches(
  gpu: Gpu,
  { config, finalNorm: weight, head }: Pick<EngineWeights, "config" | "finalNorm" | "head">,
  range: TokenRange,
  { x, normed, logits }: LogitBuffers,
  multiply: MultiplyRange = gemm,
): Promise<Dispatch[]> {
  return [
    await rmsNorm(gpu, range, { hidden: config.hidden, epsilon: config.normEpsilon, x, weight, y: normed }),
    ...await multiply(gpu, head, { range, x: normed, y: logits }),
  ];
}

/** Buffers that layers work in, for T tokens. */
export interface StageBuffers {
  /** u32 [T]: tokens to embed. */
  readonly tokens: GPUBuffer;
  /** f32 [T, hidden]: the residual stream. */
  readonly hidden: GPUBuffer;
  /** f32 [T, (heads + 2 keyValueHeads) * headSize]. */
  readonly qkv: GPUBuffer;
  /** f32 [T, 2 * intermediate]: gate and up, where they are not multiplied at once. */
  readonly gateUp: GPUBuffer;
  /** f32 [T, intermediate]: silu(gate) * up. */
  readonly inner: GPUBuffer;
}

/** Makes the buffers that layers work in. @throws {OutOfMemoryError} when the device has no room */
export async function createStageBuffers(
  scope: BufferScope,
  { hidden, heads, keyValueHeads, headSize, intermediate }: ModelConfig,
  tokens: number,
): Promise<StageBuffers> {
  const make = (label: string, width: number) => scope.storage(label, 4 * tokens * width);
  return {
    tokens: await make("tokens", 1),
    hidden: await make("hidden", hidden),
    qkv: await make("qkv", (heads + 2 * keyValueHeads) * headSize),
    gateUp: await make("gate and up", 2 * intermediate),
    inner: await make("inner", intermediate),
  };
}

/** What layers work in beside, where inputs are made before they are multiplied. */
export interface PassBuffers extends StageBuffers {
  /** f32 [T, hidden]. */
  readonly normed: GPUBuffer;
  /** f32 [T, heads * headSize]. */
  readonly mixed: GPUBuffer;
}

/** Makes all that layers work in where inputs are made first. @throws {OutOfMemoryError} when the device has no room */
export async function createPassBuffers(scope: BufferScope, config: ModelConfig, tokens: number): Promise<PassBuffers> {
  return {
    ...await createStageBuffers(scope, config, tokens),
    normed: await scope.storage("normed", 4 * tokens * config.hidden),
    mixed: await scope.storage("mixed", 4 * tokens * config.heads * config.headSize),
  };
}

/** What layers of one token of each sequence work in beside. */
export interface TokenBuffers extends StageBuffers, Omit<DecodeAttentionBuffers, "cache" | "bias" | "headNorm"> {
  /** f32: attention's partial results. */
  readonly partials: GPUBuffer;
}

/** Heads of a model's attention. */
export function attentionShape({ heads, keyValueHeads, headSize, slidingWindow }: ModelConfig): AttentionShape {
  return { heads, keyValueHeads, headSize, ...(slidingWindow !== undefined && { slidingWindow }) };
}

/** What a layer's attention takes beside its products. */
export function attentionExtras(
  { normEpsilon }: ModelConfig,
  { qkvBias, headNorm }: LayerVectors,
): Pick<DecodeAttentionBuffers, "bias" | "headNorm"> {
  return {
    ...(qkvBias && { bias: qkvBias }),
    ...(headNorm && { headNorm: { weights: headNorm, epsilon: normEpsilon } }),
  };
}

export function linearsOf(layers: readonly EngineLayer[]): WeightMatrix[] {
  return layers.flatMap(({ linears }) => Object.values(linears).flat());
}

/** The stages of a layer, each with what `multiply` makes of it; after q, k and v come the dispatches that attend. */
async function operationsOf(
  gpu: Gpu,
  config: ModelConfig,
  { outputBias }: LayerVectors,
  range: TokenRange,
  hidden: GPUBuffer,
  attend: readonly Dispatch[],
  multiply: (stage: Stage) => Promise<readonly Dispatch[]>,
  stages = STAGES,
): Promise<Operation[]> {
  const operations: Operation[] = [];
  for (const stage of stages) {
    const hasBias = stage.name === "o" && outputBias;
    const bias = hasBias ? [await addBias(gpu, range, config.hidden, outputBias, hidden)] : [];
    operations.push({ kind: stage.name, dispatches: [...await multiply(stage), ...bias] });
    if (stage.name === "qkv") operations.push({ kind: "attention", dispatches: attend });
  }
  return operations;
}

/** Where the input of a stage's matrices lies. */
export function stageInput({ normed, mixed, inner }: Omit<PassBuffers, "tokens">, { input }: Stage): GPUBuffer {
  return { attentionNorm: normed, attention: mixed, mlpNorm: normed, siluProduct: inner }[input];
}

/** Dispatches that make that input, where the stage before has not left it there. */
export async function inputDispatches(
  gpu: Gpu,
  config: ModelConfig,
  layer: LayerVectors,
  range: TokenRange,
  { hidden: x, normed: y }: Pick<PassBuffers, "hidden" | "normed">,
  { input }: Stage,
  unit?: number,
): Promise<Dispatch[]> {
  if (input !== "attentionNorm" && input !== "mlpNorm") return [];
  const norm = { hidden: config.hidden, epsilon: config.normEpsilon, x, weight: layer[input], y, unit };
  return [await rmsNorm(gpu, range, norm)];
}

/** What makes `mixed` from `qkv`. */
export interface Mixing {
  readonly dispatches: readonly Dispatch[];
  /** The unit of `mixed`, where it is made in f16. Default: f32. */
  readonly unit?: number | undefined;
}

/** What a layer of a pass makes for the next one. */
interface PassLinks {
  /** Whether the layer before has normed the input of this one. */
  readonly isNormed?: boolean;
  /** f32 [hidden]: of the norm that follows the layer, where its last stage makes that too. */
  readonly nextNorm?: GPUBuffer | undefined;
}

/** Whether a stage's product norms the residual stream that it is added to, see {@linkcode RangeProduct.norm}. */
function normsResidual(
  { linears, outputBias }: EngineLayer,
  { name }: Stage,
  { addsParts }: MultiplyRange,
): boolean {
  const [first, ...others] = linears[name];
  return others.length === 0 && !(name === "o" && outputBias) && addsParts?.(first) === true;
}

/** How a layer hangs together with its neighbours in a pass through all layers. */
export function linksOf(layers: readonly EngineLayer[], index: number, multiply: MultiplyRange): PassLinks {
  return {
    isNormed: index > 0 && normsResidual(layers[index - 1], STAGES[STAGES.length - 1], multiply),
    nextNorm: layers[index + 1]?.attentionNorm,
  };
}

/**
 * A layer for the tokens of a range, of one sequence, of several side by side or one of each of several.
 *
 * @param mixing what makes `mixed` from `qkv`
 * @param multiply how weights are multiplied
 * @param stages those that are wanted; of a layer that has no matrices yet for the others
 * @param links default: the layer stands alone
 */
export function passOperations(
  gpu: Gpu,
  config: ModelConfig,
  layer: EngineLayer,
  range: TokenRange,
  buffers: Omit<PassBuffers, "tokens">,
  mixing: Mixing,
  multiply: MultiplyRange = gemm,
  stages: readonly Stage[] = STAGES,
  { isNormed = false, nextNorm }: PassLinks = {},
): Promise<Operation[]> {
  const { hidden, qkv, gateUp, inner, normed } = buffers;
  const outputs = { qkv, o: hidden, "gate+up": gateUp, down: hidden };
  const nextNorms = { qkv: undefined, o: layer.mlpNorm, "gate+up": undefined, down: nextNorm };
  let isMade = isNormed;
  const multiplyStage = async (stage: Stage) => {
    const { name, joinsResidual: addToY } = stage;
    const { inputUnit } = multiply;
    const unit = stage.input === "attention" ? mixing.unit : inputUnit;
    const dispatches = isMade ? [] : await inputDispatches(gpu, config, layer, range, buffers, stage, unit);
    const isPair = name === "gate+up" && arePair(layer.linears[name], multiply.addsParts);
    const y = isPair ? inner : outputs[name];
    const weight = normsResidual(layer, stage, multiply) ? nextNorms[name] : undefined;
    const norm = weight && { weight, epsilon: config.normEpsilon, normed, unit: inputUnit };
    for (const matrix of layer.linears[name]) {
      const product = { range, x: stageInput(buffers, stage), unit, y, addToY, isPair, norm };
      dispatches.push(...await multiply(gpu, matrix, product));
    }
    isMade = norm !== undefined;
    if (name === "gate+up" && !isPair) {
      dispatches.push(await siluProduct(gpu, range, config.intermediate, gateUp, inner, unit));
    }
    return dispatches;
  };
  return operationsOf(gpu, config, layer, range, hidden, mixing.dispatches, multiplyStage, stages);
}

/** Whether gate and up are one matrix, of which a product makes silu(gate) up. */
function arePair([first, ...others]: readonly WeightMatrix[], takes?: (matrix: WeightMatrix) => boolean): boolean {
  return others.length === 0 && first.slabs.length === 1 && first.rows % 8 === 0 && takes?.(first) === true;
}

/** A layer for one token of each of some sequences, with so many splits of a sequence. */
export async function tokenOperations(
  gpu: Gpu,
  config: ModelConfig,
  layer: EngineLayer,
  range: TokenRange,
  cache: KeyValueCache,
  splits: number,
  buffers: TokenBuffers,
  multiply: MultiplyFused,
): Promise<Operation[]> {
  const { hidden, qkv, partials, gateUp, inner } = buffers;
  const { normEpsilon: epsilon, headSize, intermediate } = config;
  const shape = attentionShape(config);
  const normed = (weight: GPUBuffer): Prologue => ({ kind: "rms_norm", x: hidden, weight, epsilon });
  const attention: Prologue = splits === 1
    ? { kind: "vector", x: partials }
    : { kind: "attention", partials, splits, headSize };
  const inputs: Readonly<Record<Stage["input"], Prologue>> = {
    attentionNorm: normed(layer.attentionNorm),
    attention,
    mlpNorm: normed(layer.mlpNorm),
    siluProduct: { kind: "vector", x: inner },
  };
  const outputs = { qkv, o: hidden, "gate+up": gateUp, down: hidden };
  const extras = { ...buffers, cache, ...attentionExtras(config, layer) };
  const attend = [await decodeAttention(gpu, shape, splits, extras, range.maxTokens)];
  return await operationsOf(gpu, config, layer, range, hidden, attend, async ({ name, input, joinsResidual }) => {
    const parts = layer.linears[name];
    const isProduct = name === "gate+up" && arePair(parts, (matrix) => takesPairs(gpu, matrix, range.maxTokens));
    const output: Epilogue = isProduct
      ? { kind: "silu_product", y: { buffer: inner } }
      : { kind: joinsResidual ? "add" : "store", y: { buffer: outputs[name] } };
    const dispatches: Dispatch[] = [];
    for (const matrix of parts) dispatches.push(...await multiply(matrix, inputs[input], output));
    if (name === "gate+up" && !isProduct) {
      dispatches.push(await siluProduct(gpu, range, intermediate, gateUp, inner));
    }
    return dispatches;
  });
}
