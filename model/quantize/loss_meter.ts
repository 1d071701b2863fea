/**
 * Text on its way through the unquantized model on the device, and what the model loses where one stage of the layer that
 * the text has come to gets other matrices.
 *
 * @module
 */
import type { KeyValueCache } from "../../kernels/attention/key_value_cache.ts";
import { prefillAttention } from "../../kernels/attention/prefill_attention.ts";
import { ropeCache } from "../../kernels/attention/rope_cache.ts";
import { divergence } from "../../kernels/backward/divergence.ts";
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { whole } from "../../kernels/gpu/plane.ts";
import type { SquareMatrix } from "../../kernels/matrix/square_matrix.ts";
import { gemm } from "../../kernels/product/linear.ts";
import { addGram } from "../../kernels/quantize/add_gram.ts";
import { embedTokens } from "../../kernels/tokens/embed_tokens.ts";
import { rmsNorm } from "../../kernels/tokens/rms_norm.ts";
import { createTokenRange, setTokenRange, type TokenRange } from "../../kernels/tokens/token_range.ts";
import type { EngineLayer, EngineWeights, JoinedLinear } from "../engine/engine_weights.ts";
import {
  attentionExtras,
  attentionShape,
  createStageBuffers,
  type Operation,
  type PassBuffers,
  passOperations,
} from "../engine/layer_operations.ts";
import { mean } from "../host/statistics.ts";
import type { ModelConfig } from "../llama/config.ts";
import { STAGES } from "../llama/layer.ts";
import { rotationTable } from "../llama/rope.ts";

/** The text before a layer of the unquantized model. */
export interface LossMeter {
  /** Takes all windows through the layer that they have come to, and adds the inputs of its stages to their sums. */
  advance(grams: readonly (SquareMatrix | undefined)[]): Promise<void>;
  /**
   * KL from the unquantized model's predictions, in nats a token, of a model whose layer has other matrices in one stage:
   * of the layer that {@linkcode advance} has just taken the windows through.
   *
   * @param stage index of the stage
   * @throws {RangeError} when predictions are no numbers
   */
  lossOf(stage: number, matrices: JoinedLinear): Promise<number>;
}

/** Which windows are measured. */
export interface LossPlan {
  /** The text; all of it is summed. */
  readonly windows: readonly Uint32Array[];
  /** Windows, spread evenly, in which predictions are compared. */
  readonly lossWindows: number;
}

/** Tokens of a window in which predictions are compared. */
const LOSS_TOKENS = 512;

/** Windows that are submitted before the host waits for the device, so that submitted work doesn't pile up. */
const WINDOWS_AHEAD = 4;

/**
 * Puts windows before the first layer, and keeps the logits that the model has for some of them.
 *
 * @param scope takes over the buffers: 4 * hidden bytes a token, 4 * vocabulary a compared one
 * @throws {OutOfMemoryError} when the device has no room
 */
export async function createLossMeter(
  gpu: Gpu,
  scope: BufferScope,
  weights: EngineWeights,
  { windows, lossWindows }: LossPlan,
): Promise<LossMeter> {
  const { config, layers } = weights;
  const longest = Math.max(...windows.map(({ length }) => length));
  const bound = Math.floor(gpu.device.limits.maxStorageBufferBindingSize / (4 * config.vocabulary));
  const text = await createPass(gpu, scope, config, longest);
  const compared = await createPass(gpu, scope, config, Math.min(LOSS_TOKENS, longest, bound));
  const states: GPUBuffer[] = [];
  for (const tokens of windows) states.push(await embedWindow(gpu, scope, weights, text, tokens));
  const samples = Array.from({ length: Math.min(lossWindows, windows.length) }, (_, i) => {
    const window = Math.floor(i * windows.length / Math.min(lossWindows, windows.length));
    return { window, tokens: Math.min(windows[window].length, compared.range.maxTokens) };
  });
  const inputs: GPUBuffer[] = [];
  for (const { tokens } of samples) inputs.push(await scope.storage("loss input", 4 * tokens * config.hidden));
  const operations: Dispatch[][] = [];
  for (const layer of layers) operations.push(dispatchesOf(await compared.operationsOf(layer)));
  const head = await createHead(gpu, scope, weights, compared, samples.length);
  let next = 0;
  /** Takes a compared window from a layer's input to its predictions. */
  const predict = (sample: number, first: readonly Dispatch[], after: number, last: readonly Dispatch[]) => {
    const { tokens } = samples[sample];
    setTokenRange(gpu, compared.range, tokens, 0);
    gpu.copy(inputs[sample], 0, compared.buffers.hidden, 0, 4 * tokens * config.hidden);
    gpu.submit([...first, ...operations.slice(after).flat(), ...head.logits, ...last]);
  };
  const keepInputs = () => {
    for (const [i, { window, tokens }] of samples.entries()) {
      gpu.copy(states[window], 0, inputs[i], 0, 4 * tokens * config.hidden);
    }
  };
  keepInputs();
  for (const [i, { tokens }] of samples.entries()) {
    predict(i, [], 0, []);
    head.keep(i, tokens);
    await gpu.wait();
  }
  return {
    async advance(grams) {
      keepInputs();
      const own = await text.operationsOf(layers[next]);
      for (const [i, state] of states.entries()) {
        await advanceWindow(gpu, text, own, state, windows[i].length, grams);
        if (i % WINDOWS_AHEAD === WINDOWS_AHEAD - 1) await gpu.wait();
      }
      next++;
    },
    async lossOf(stage, matrices) {
      const layer = layers[next - 1];
      const linears = { ...layer.linears, [STAGES[stage].name]: matrices };
      const first = dispatchesOf(await compared.operationsOf({ ...layer, linears }));
      for (const sample of samples.keys()) predict(sample, first, next, [head.compare[sample]]);
      const losses = await head.divergences(samples.map(({ tokens }) => tokens));
      const loss = mean(losses);
      if (Number.isNaN(loss)) throw new RangeError(`${STAGES[stage].name} of layer ${next - 1} predicts no numbers`);
      return loss;
    },
  };
}

/** What takes tokens of one window through layers. */
interface Pass {
  readonly range: TokenRange;
  readonly buffers: PassBuffers;
  /** Dispatches of a layer. */
  readonly operationsOf: (layer: EngineLayer) => Promise<Operation[]>;
}

async function createPass(gpu: Gpu, scope: BufferScope, config: ModelConfig, tokens: number): Promise<Pass> {
  const { hidden, heads, keyValueHeads, headSize, rope } = config;
  const range = await createTokenRange(gpu, tokens);
  scope.own(range.buffer);
  const buffers = {
    ...await createStageBuffers(scope, config, tokens),
    normed: await scope.storage("normed", 4 * tokens * hidden),
    mixed: await scope.storage("mixed", 4 * tokens * heads * headSize),
  };
  const capacity = Math.ceil(tokens / 64) * 64;
  const cacheBytes = 2 * keyValueHeads * headSize * capacity;
  const cache: KeyValueCache = {
    capacity,
    keys: whole(await scope.storage("keys", cacheBytes)),
    values: whole(await scope.storage("values", cacheBytes)),
  };
  const rotations = await scope.upload("rotations", rotationTable(rope, headSize, capacity));
  const shape = attentionShape(config);
  const { qkv, mixed } = buffers;
  const operationsOf = async (layer: EngineLayer) => {
    const attend = [
      await ropeCache(gpu, shape, range, { qkv, rotations, cache, ...attentionExtras(config, layer) }),
      await prefillAttention(gpu, shape, range, { qkv, cache, out: mixed }),
    ];
    return await passOperations(gpu, config, layer, range, buffers, attend);
  };
  return { range, buffers, operationsOf };
}

function dispatchesOf(operations: readonly Operation[]): Dispatch[] {
  return operations.flatMap(({ dispatches }) => dispatches);
}

/** A window's input of the first layer. */
async function embedWindow(
  gpu: Gpu,
  scope: BufferScope,
  { embedding, config }: EngineWeights,
  { range, buffers }: Pass,
  tokens: Uint32Array,
): Promise<GPUBuffer> {
  const state = await scope.storage("state", 4 * tokens.length * config.hidden);
  setTokenRange(gpu, range, tokens.length, 0);
  gpu.write(buffers.tokens, Uint32Array.from(tokens));
  gpu.submit(await embedTokens(gpu, embedding, range, buffers.tokens, buffers.hidden));
  gpu.copy(buffers.hidden, 0, state, 0, state.size);
  return state;
}

/** Takes a window through a layer, and adds what comes into each stage to its sums. */
async function advanceWindow(
  gpu: Gpu,
  { range, buffers: { hidden, normed, mixed, inner } }: Pass,
  operations: readonly Operation[],
  state: GPUBuffer,
  tokens: number,
  grams: readonly (SquareMatrix | undefined)[],
): Promise<void> {
  const inputs = { attentionNorm: normed, attention: mixed, mlpNorm: normed, siluProduct: inner };
  setTokenRange(gpu, range, tokens, 0);
  gpu.copy(state, 0, hidden, 0, state.size);
  for (const { kind, dispatches } of operations) {
    gpu.submit(dispatches);
    const stage = STAGES.findIndex(({ name }) => name === kind);
    const gram = grams[stage];
    if (gram) await addGram(gpu, tokens, inputs[STAGES[stage].input], gram);
  }
  gpu.copy(hidden, 0, state, 0, state.size);
}

/** Offsets of bindings are multiples of this in every implementation. */
const ALIGNMENT_BYTES = 256;

/** Makes what predicts from the last layer's output, and compares with predictions that it keeps. */
async function createHead(
  gpu: Gpu,
  scope: BufferScope,
  { config, finalNorm, head }: EngineWeights,
  { range, buffers: { hidden: x, normed } }: Pass,
  samples: number,
) {
  const { hidden, vocabulary, normEpsilon: epsilon } = config;
  const logits = await scope.storage("logits", 4 * range.maxTokens * vocabulary);
  const weights = await scope.upload("weights", new Float32Array(range.maxTokens).fill(1));
  const sampleBytes = Math.ceil(4 * range.maxTokens / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  const found = await scope.storage("divergences", samples * sampleBytes);
  const references: GPUBuffer[] = [];
  const compare: Dispatch[] = [];
  for (let i = 0; i < samples; i++) {
    const wanted = await scope.storage("reference logits", logits.size);
    const divergences = { buffer: found, offset: i * sampleBytes, size: 4 * range.maxTokens };
    references.push(wanted);
    compare.push(
      await divergence(gpu, range, { vocabulary, stride: vocabulary, wanted, weights, logits, divergences }),
    );
  }
  return {
    /** Makes logits of the residual stream. */
    logits: [
      await rmsNorm(gpu, range, { hidden, epsilon, x, weight: finalNorm, y: normed }),
      ...await gemm(gpu, head, { range, x: normed, y: logits }),
    ],
    /** Keeps the logits as a sample's reference. */
    keep: (sample: number, tokens: number) => gpu.copy(logits, 0, references[sample], 0, 4 * tokens * vocabulary),
    /** Compares the logits with a sample's reference. */
    compare,
    /** Divergences of all samples' tokens. */
    async divergences(tokens: readonly number[]): Promise<number[]> {
      const all = await gpu.readF32(found);
      return tokens.flatMap((count, i) => [...all.subarray(i * sampleBytes / 4, i * sampleBytes / 4 + count)]);
    },
  };
}
