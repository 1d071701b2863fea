// From the last layer's output to the divergence of next-token distributions, and back.
import { divergence } from "../../kernels/backward/divergence.ts";
import { rmsNormBackward } from "../../kernels/backward/norm_backward.ts";
import { transposeHalves } from "../../kernels/backward/transpose_halves.ts";
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { createF16Matrix } from "../../kernels/matrix/f16_matrix.ts";
import { buffersOf, placeRows } from "../../kernels/matrix/slabs.ts";
import { gemm } from "../../kernels/product/linear.ts";
import type { EngineWeights } from "../engine/engine_weights.ts";
import { windowOf } from "../engine/joined_attention.ts";
import { logitDispatches } from "../engine/layer_operations.ts";
import type { Parameters } from "./parameters.ts";
import type { TuningBuffers } from "./pass_buffers.ts";

/** Compares what the tuned and the unquantized model say after each token of a window. */
export interface DivergenceHead {
  /** f32 [T, hidden]: where the unquantized model's residual stream before the last norm is put for a window. */
  readonly wantedHidden: GPUBuffer;
  /** Dispatches that make the divergences of a window and leave the gradients of its logits. */
  readonly compare: readonly (readonly Dispatch[])[];
  /** Dispatches that then add to the gradients of the residual stream and of the last norm. */
  readonly goBack: readonly (readonly Dispatch[])[];
}

/** Elements of a token's logits: the head's gradient is read in fours. */
export function logitStride(vocabulary: number): number {
  return Math.ceil(vocabulary / 4) * 4;
}

/** Makes the dispatches of each window. Logits of one window are on the device at a time, in both models. */
export async function createDivergenceHead(
  gpu: Gpu,
  scope: BufferScope,
  { config, head, finalNorm }: EngineWeights,
  buffers: TuningBuffers,
  parameters: Parameters,
): Promise<DivergenceHead> {
  const { hidden: width, vocabulary, normEpsilon: epsilon } = config;
  const { windows, windowTokens, windowRange: range } = buffers;
  const stride = logitStride(vocabulary);
  const make = (label: string, size: number) => scope.storage(label, 4 * windowTokens * size);
  const [wantedHidden, normed] = [await make("wanted hidden", width), await make("normed", width)];
  const [wanted, logits] = [await make("wanted logits", stride), await make("logits", stride)];
  const wantedNorm = scope.own(await gpu.duplicate(finalNorm));
  const transposed = await createF16Matrix(gpu, width, stride);
  buffersOf(transposed).forEach(scope.own);
  gpu.submit(await transposeHalves(gpu, head, width, transposed));
  const model = { config, head: placeRows(head, 0, stride) };
  const logitsOf = (x: GPUBuffer | GPUBufferBinding, finalNorm: GPUBuffer, logits: GPUBuffer) =>
    logitDispatches(gpu, { ...model, finalNorm }, range, { x, normed, logits });
  const compare: Dispatch[][] = [];
  const goBack: Dispatch[][] = [];
  for (let window = 0; window < windows; window++) {
    const part = (buffer: GPUBuffer, size: number) => windowOf(buffer, range, window, size);
    const [weights, divergences] = [part(buffers.weights, 1), part(buffers.divergences, 1)];
    compare.push([
      ...await logitsOf(wantedHidden, wantedNorm, wanted),
      ...await logitsOf(part(buffers.hidden, width), finalNorm, logits),
      await divergence(gpu, range, { vocabulary, stride, wanted, weights, logits, divergences }),
    ]);
    goBack.push([
      ...await gemm(gpu, transposed, { range, x: logits, y: normed }),
      ...await rmsNormBackward(gpu, range, {
        hidden: width,
        epsilon,
        x: part(buffers.hidden, width),
        weight: finalNorm,
        yGradient: normed,
        xGradient: part(buffers.hiddenGradient, width),
        weightGradient: parameters.normGradient(finalNorm),
        partials: buffers.partials,
      }),
    ]);
  }
  return { wantedHidden, compare, goBack };
}
