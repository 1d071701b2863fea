/**
 * Text on its way through the unquantized model on the device, and what the model loses where one stage of the layer that
 * the text has come to gets other matrices.
 *
 * @module
 */
import { divergence } from "../../kernels/backward/divergence.ts";
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import type { SquareMatrix } from "../../kernels/matrix/square_matrix.ts";
import { gemm } from "../../kernels/product/linear.ts";
import { addGram } from "../../kernels/quantize/add_gram.ts";
import { rmsNorm } from "../../kernels/tokens/rms_norm.ts";
import type { EngineLayer, EngineWeights, JoinedLinear } from "../engine/engine_weights.ts";
import { windowOf } from "../engine/joined_attention.ts";
import { mean } from "../host/statistics.ts";
import { STAGES } from "../llama/layer.ts";
import {
  createStreamContext,
  createWindows,
  joinWindows,
  passDispatches,
  stageInputOf,
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

/** Which windows are measured. */
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
  const compared = await createWindows(gpu, scope, config, embedding, joinedSamples, false);
  const passOf = async (layer: EngineLayer, windows: StreamWindows) => {
    const stages: Dispatch[] = [];
    for (const stage of STAGES.keys()) stages.push(...await passDispatches(context, layer, windows, stage));
    return stages;
  };
  const head = await createHead(gpu, scope, weights, compared);
  const groups: ComparedWindows[] = [];
  for (const windows of compared) {
    const input = scope.own(await gpu.duplicate(windows.hidden));
    const passes: Dispatch[][] = [];
    for (const layer of layers) passes.push(await passOf(layer, windows));
    groups.push({ windows, input, passes });
  }
  const sources = sampled.map((window) => placeOf(text, window));
  let next = 0;
  /** Takes compared windows from the input of a layer to their predictions, each of which `use` is told of. */
  const predict = (group: number, first: readonly Dispatch[], after: number, use: (head: WindowHead) => void) => {
    const { windows: { hidden }, input, passes } = groups[group];
    gpu.copy(input, 0, hidden, 0, input.size);
    gpu.submit([...first, ...passes.slice(after).flat()]);
    head.windows[group].forEach(use);
  };
  for (const group of groups.keys()) {
    predict(group, [], 0, ({ logits, keep }) => {
      gpu.submit(logits);
      keep();
    });
    await gpu.wait();
  }
  return {
    async advance(grams) {
      const places = sources.values();
      for (const { windows: { count }, input } of groups) {
        const size = input.size / count;
        for (let i = 0; i < count; i++) {
          const { buffer, offset } = places.next().value!;
          gpu.copy(buffer, offset, input, i * size, size);
        }
      }
      for (const [i, windows] of text.entries()) {
        for (const [stage, gram] of grams.entries()) {
          gpu.submit(await passDispatches(context, layers[next], windows, stage));
          if (gram) await addGram(gpu, windows.range.maxTokens, stageInputOf(context, windows, stage), gram);
        }
        if (i % WINDOWS_AHEAD === WINDOWS_AHEAD - 1) await gpu.wait();
      }
      next++;
    },
    async lossOf(stage, matrices) {
      const layer = layers[next - 1];
      const changed = { ...layer, linears: { ...layer.linears, [STAGES[stage].name]: matrices } };
      for (const [group, { windows }] of groups.entries()) {
        const first = await passOf(changed, windows);
        predict(group, first, next, ({ logits, compare }) => gpu.submit([...logits, compare]));
      }
      const loss = mean(await head.readDivergences());
      if (Number.isNaN(loss)) throw new RangeError(`${STAGES[stage].name} of layer ${next - 1} predicts no numbers`);
      return loss;
    },
  };
}

/** Windows side by side in which predictions are compared. */
interface ComparedWindows {
  readonly windows: StreamWindows;
  /** f32 [tokens, hidden]: input of the layer that the text has come to. */
  readonly input: GPUBuffer;
  /** Dispatches of each layer. */
  readonly passes: readonly (readonly Dispatch[])[];
}

/** Where a window of the text begins in the residual streams. */
function placeOf(text: readonly StreamWindows[], window: number): { buffer: GPUBuffer; offset: number } {
  let first = 0;
  const { hidden: buffer, count } = text.find(({ count }) => window < (first += count))!;
  return { buffer, offset: (window - first + count) * buffer.size / count };
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
async function createHead(
  gpu: Gpu,
  scope: BufferScope,
  { config, finalNorm, head }: EngineWeights,
  compared: readonly StreamWindows[],
) {
  const { hidden: width, vocabulary, normEpsilon: epsilon } = config;
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
        logits: [
          await rmsNorm(gpu, range, { hidden: width, epsilon, x, weight: finalNorm, y: normed }),
          ...await gemm(gpu, head, { range, x: normed, y: logits }),
        ],
        keep: () => gpu.copy(logits, 0, wanted, 0, wanted.size),
        compare: await divergence(gpu, range, { vocabulary, stride: vocabulary, wanted, weights, logits, divergences }),
      });
    }
    windows.push(heads);
  }
  return {
    /** By groups that go side by side. */
    windows,
    /** Divergences of all windows' tokens. */
    async readDivergences(): Promise<number[]> {
      const all = await gpu.readF32(found);
      return ranges.flatMap(({ maxTokens }, i) => [
        ...all.subarray(i * foundBytes / 4, i * foundBytes / 4 + maxTokens),
      ]);
    },
  };
}
