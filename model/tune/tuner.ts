// A quantized model on the device that learns from the unquantized one: divergences of windows, their gradients, steps.
import { allOrNone } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { embedTokens } from "../../kernels/tokens/embed_tokens.ts";
import type { EngineLayer, EngineWeights } from "../engine/engine_weights.ts";
import { joinedAttention } from "../engine/joined_attention.ts";
import { passOperations } from "../engine/layer_operations.ts";
import { createDivergenceHead, type DivergenceHead } from "./divergence_head.ts";
import { layerBackward } from "./layer_backward.ts";
import { createParameters, type Parameters } from "./parameters.ts";
import { createTuningBuffers, type PassShape, type TuningBuffers } from "./pass_buffers.ts";

/** A window of text and what the unquantized model makes of it. */
export interface TuningWindow {
  readonly tokens: Uint32Array;
  /** f32 [tokens, hidden]: the unquantized model's residual stream before the last norm. */
  readonly hidden: Required<GPUBufferBinding>;
}

/** A model that is being tuned. Dispose it to free what it made; the weights stay their owner's. */
export interface Tuner extends Disposable {
  readonly parameters: Parameters;
  /** Mean divergence over all tokens of some windows, in nats. */
  divergenceOf(windows: readonly TuningWindow[]): Promise<number>;
  /** The same; its gradients are added to those of the parameters. */
  addGradients(windows: readonly TuningWindow[]): Promise<number>;
}

interface LayerPass {
  /** Its input, kept while later layers run. */
  readonly input: GPUBuffer;
  /** Up to the qkv product. */
  readonly product: readonly Dispatch[];
  /** From there to the input of the last stage. */
  readonly inside: readonly Dispatch[];
  /** The last stage. */
  readonly end: readonly Dispatch[];
  /** From the gradient of its output to that of its input. */
  readonly back: readonly Dispatch[];
}

interface TunerParts {
  readonly gpu: Gpu;
  readonly buffers: TuningBuffers;
  readonly embed: readonly Dispatch[];
  readonly layers: readonly LayerPass[];
  readonly head: DivergenceHead;
}

/** Makes a tuner of a model whose packed matrices lie in one slab each. @throws {OutOfMemoryError} when there is no room */
export function createTuner(gpu: Gpu, weights: EngineWeights, shape: PassShape): Promise<Tuner> {
  return allOrNone(gpu, async (scope) => {
    const { config } = weights;
    const buffers = await createTuningBuffers(gpu, scope, config, shape);
    const parameters = await createParameters(gpu, scope, weights);
    const context = { gpu, scope, config, buffers, parameters, halves: new Map() };
    const layers: LayerPass[] = [];
    for (const [i, layer] of weights.layers.entries()) {
      const input = buffers.inputs[i];
      const back = await layerBackward(context, layer, input);
      layers.push({ input, back, ...await layerForward(gpu, weights, layer, buffers) });
    }
    const embed = await embedTokens(gpu, weights.embedding, buffers.range, buffers.tokens, buffers.hidden);
    const head = await createDivergenceHead(gpu, scope, weights, buffers, parameters);
    const parts = { gpu, buffers, embed, layers, head };
    return {
      parameters,
      divergenceOf: (windows) => takePasses(parts, windows, false),
      addGradients: (windows) => takePasses(parts, windows, true),
      [Symbol.dispose]: () => scope[Symbol.dispose](),
    };
  });
}

/** A layer on the way forward, for all windows of a pass; each attends to itself. */
async function layerForward(
  gpu: Gpu,
  { config }: EngineWeights,
  layer: EngineLayer,
  buffers: TuningBuffers,
): Promise<Pick<LayerPass, "product" | "inside" | "end">> {
  const mixing = await joinedAttention(gpu, config, layer, buffers.range, buffers);
  const operations = await passOperations(gpu, config, layer, buffers.range, buffers, mixing);
  const dispatches = operations.map((operation) => operation.dispatches);
  return { product: dispatches[0], inside: dispatches.slice(1, -1).flat(), end: dispatches.at(-1)! };
}

/** Takes windows through the model, some at a time; returns their mean divergence. */
async function takePasses(parts: TunerParts, windows: readonly TuningWindow[], goesBack: boolean): Promise<number> {
  const total = windows.reduce((sum, { tokens }) => sum + tokens.length, 0);
  let sum = 0;
  for (let first = 0; first < windows.length; first += parts.buffers.windows) {
    const present = windows.slice(first, first + parts.buffers.windows);
    goForward(parts, present, 1 / total);
    compareWindows(parts, present, goesBack);
    if (goesBack) goBack(parts);
    const divergences = await parts.gpu.readF32(parts.buffers.divergences);
    const { windowTokens } = parts.buffers;
    sum += divergences.subarray(0, present.length * windowTokens).reduce((sum, value) => sum + value, 0);
  }
  return sum;
}

/** Takes windows to the last layer's output. @param weight of each token; padding has none */
function goForward(
  { gpu, buffers, embed, layers }: TunerParts,
  present: readonly TuningWindow[],
  weight: number,
): void {
  const { windows, windowTokens, tokens, weights, hidden } = buffers;
  const padded = new Uint32Array(windows * windowTokens);
  const tokenWeights = new Float32Array(windows * windowTokens);
  for (const [i, { tokens }] of present.entries()) {
    padded.set(tokens, i * windowTokens);
    tokenWeights.fill(weight, i * windowTokens, i * windowTokens + tokens.length);
  }
  gpu.write(tokens, padded);
  gpu.write(weights, tokenWeights);
  gpu.submit(embed);
  for (const { input, product, inside, end } of layers) {
    gpu.copy(hidden, 0, input, 0, hidden.size);
    gpu.submit([...product, ...inside, ...end]);
  }
}

/** Compares what the models say of each window. */
function compareWindows({ gpu, buffers, head }: TunerParts, present: readonly TuningWindow[], goesBack: boolean): void {
  if (goesBack) gpu.clear(buffers.hiddenGradient);
  for (const [i, { hidden }] of present.entries()) {
    gpu.copy(hidden.buffer, hidden.offset, head.wantedHidden, 0, hidden.size);
    gpu.submit(goesBack ? [...head.compare[i], ...head.goBack[i]] : head.compare[i]);
  }
}

/** Takes gradients back through the layers; each is computed again from its input. */
function goBack({ gpu, buffers: { hidden, qkv, qkvBefore }, layers }: TunerParts): void {
  for (const { input, product, inside, back } of layers.toReversed()) {
    gpu.copy(input, 0, hidden, 0, hidden.size);
    gpu.submit(product);
    // Rotation takes the product's place; norms of heads go back through what was there.
    if (qkvBefore !== qkv) gpu.copy(qkv, 0, qkvBefore, 0, qkv.size);
    gpu.submit([...inside, ...back]);
  }
}
