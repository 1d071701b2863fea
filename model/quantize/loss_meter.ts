// Text on its way through the unquantized model on the device, and what the model loses where one stage of the layer
// that the text has come to gets other matrices.
import { divergence } from "../../kernels/backward/divergence.ts";
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import type { SquareMatrix } from "../../kernels/matrix/square_matrix.ts";
import { runAhead } from "../../kernels/gpu/run_ahead.ts";
import { addGram, summedInputs } from "../../kernels/quantize/token_sums.ts";
import type { EngineLayer, EngineWeights, JoinedLinear } from "../engine/engine_weights.ts";
import { windowOf } from "../engine/joined_attention.ts";
import { logitDispatches } from "../engine/layer_operations.ts";
import { mean } from "../host/statistics.ts";
import { STAGES } from "../llama/layer.ts";
import {
  createStreamContext,
  createWindows,
  joinWindows,
  passDispatches,
  stageInputOf,
  type StreamContext,
  type StreamWindows,
  WINDOWS_AHEAD,
} from "./device_stream.ts";

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

export interface LossPlan {
  /** The text; all of it is summed. */
  readonly windows: readonly Uint32Array[];
  /** Windows, spread evenly, in which predictions are compared. */
  readonly lossWindows: number;
}

/** Tokens of a window in which predictions are compared: the first ones. */
const LOSS_TOKENS = 512;

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
  const { config, layers, embedding } = weights;
  const bound = Math.floor(gpu.device.limits.maxStorageBufferBindingSize / (4 * config.vocabulary));
  const count = Math.min(lossWindows, windows.length);
  const sampled = Array.from({ length: count }, (_, i) => Math.floor(i * windows.length / count));
  const samples = sampled.map((window) => windows[window].subarray(0, Math.min(LOSS_TOKENS, bound)));
  const [joined, joinedSamples] = [joinWindows(config, windows), joinWindows(config, samples)];
  const context = await createStreamContext(gpu, scope, config, [...joined, ...joinedSamples]);
  const text = await createWindows(gpu, scope, config, embedding, joined, false);
  const comparison = await createComparison(context, scope, weights, joinedSamples);
  const places = sampled.map((window) => placeOf(text, window));
  let next = 0;
  return {
    async advance(grams) {
      comparison.takeInputs(places);
      await runAhead(gpu, text.length, WINDOWS_AHEAD, async (i) => {
        for (const [stage, gram] of grams.entries()) {
          gpu.submit(await passDispatches(context, layers[next], text[i], stage));
          if (!gram) continue;
          const shape = [text[i].range.maxTokens, gram.size] as const;
          const input = stageInputOf(context, text[i], stage);
          await addGram(gpu, await summedInputs(gpu, shape, input, context.halves), gram);
        }
      });
      next++;
    },
    async lossOf(stage, matrices) {
      const layer = layers[next - 1];
      const linears = { ...layer.linears, [STAGES[stage].name]: matrices };
      const loss = mean(await comparison.divergencesOf({ ...layer, linears }, next));
      if (Number.isNaN(loss)) throw new RangeError(`${STAGES[stage].name} of layer ${next - 1} predicts no numbers`);
      return loss;
    },
  };
}

/** Where a window's residual stream begins. */
interface Place {
  readonly buffer: GPUBuffer;
  readonly offset: number;
}

function placeOf(text: readonly StreamWindows[], window: number): Place {
  let first = 0;
  const { hidden: buffer, count } = text.find(({ count }) => window < (first += count))!;
  return { buffer, offset: (window - first + count) * buffer.size / count };
}

interface Comparison {
  /** Takes over their inputs of the next layer, one place for each. */
  takeInputs(places: readonly Place[]): void;
  /** Divergences of all their tokens, taken through another layer first, then from layer `after` on. */
  divergencesOf(layer: EngineLayer, after: number): Promise<number[]>;
}

/** Takes windows through the model, whose predictions become the reference. */
async function createComparison(
  context: StreamContext,
  scope: BufferScope,
  weights: EngineWeights,
  joined: readonly (readonly Uint32Array[])[],
): Promise<Comparison> {
  const { gpu, config } = context;
  const compared = await createWindows(gpu, scope, config, weights.embedding, joined, false);
  const head = await createWindowHeads(gpu, scope, weights, compared);
  const inputs: GPUBuffer[] = [];
  const passes: Dispatch[][][] = [];
  for (const [group, windows] of compared.entries()) {
    inputs.push(scope.own(await gpu.duplicate(windows.hidden)));
    passes.push([]);
    for (const layer of weights.layers) passes[group].push(await passDispatches(context, layer, windows));
    passes[group].forEach((pass) => gpu.submit(pass));
    for (const { logits, keep } of head.windows[group]) {
      gpu.submit(logits);
      keep();
    }
    await gpu.wait();
  }
  return {
    takeInputs(places) {
      const next = places.values();
      for (const [group, { count }] of compared.entries()) {
        const size = inputs[group].size / count;
        for (let i = 0; i < count; i++) {
          const { buffer, offset } = next.next().value!;
          gpu.copy(buffer, offset, inputs[group], i * size, size);
        }
      }
    },
    async divergencesOf(layer, after) {
      for (const [group, windows] of compared.entries()) {
        gpu.copy(inputs[group], 0, windows.hidden, 0, windows.hidden.size);
        gpu.submit(await passDispatches(context, layer, windows));
        // A layer a submit: drivers end one that takes seconds.
        for (const pass of passes[group].slice(after)) gpu.submit(pass);
        for (const { logits, compare } of head.windows[group]) gpu.submit([...logits, compare]);
      }
      return await head.readDivergences();
    },
  };
}

/** What predicts from the last layer's output of a compared window, and compares that with a prediction it keeps. */
interface WindowHead {
  /** Dispatches that make logits of the residual stream. */
  readonly logits: readonly Dispatch[];
  /** Keeps the logits as the reference. */
  readonly keep: () => void;
  /** Compares the logits with the reference, and uses them up. */
  readonly compare: Dispatch;
}

/** Offsets of bindings are multiples of this in every implementation. */
const ALIGNMENT_BYTES = 256;

/** Makes the head of each compared window; logits of one are there at a time. */
async function createWindowHeads(
  gpu: Gpu,
  scope: BufferScope,
  model: EngineWeights,
  compared: readonly StreamWindows[],
) {
  const { hidden: width, vocabulary } = model.config;
  const ranges = compared.flatMap(({ count, windowRange }) => Array.from({ length: count }, () => windowRange));
  const most = Math.max(...ranges.map(({ maxTokens }) => maxTokens));
  const foundBytes = Math.ceil(4 * most / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  const found = await scope.storage("divergences", ranges.length * foundBytes);
  const logits = await scope.storage("logits", 4 * most * vocabulary);
  const weights = await scope.upload("weights", new Float32Array(most).fill(1));
  const windows: WindowHead[][] = [];
  let at = 0;
  for (const { count, windowRange: range, hidden, normed } of compared) {
    const heads: WindowHead[] = [];
    for (let i = 0; i < count; i++, at++) {
      const wanted = await scope.storage("reference logits", 4 * range.maxTokens * vocabulary);
      const divergences = { buffer: found, offset: at * foundBytes, size: 4 * range.maxTokens };
      const x = windowOf(hidden, range, i, width);
      heads.push({
        logits: await logitDispatches(gpu, model, range, { x, normed, logits }),
        keep: () => gpu.copy(logits, 0, wanted, 0, wanted.size),
        compare: await divergence(gpu, range, { vocabulary, stride: vocabulary, wanted, weights, logits, divergences }),
      });
    }
    windows.push(heads);
  }
  return {
    /** By groups that go side by side. */
    windows,
    async readDivergences(): Promise<number[]> {
      const all = await gpu.readF32(found);
      return ranges.flatMap(({ maxTokens }, i) => [
        ...all.subarray(i * foundBytes / 4, i * foundBytes / 4 + maxTokens),
      ]);
    },
  };
}
