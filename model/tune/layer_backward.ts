// The way of gradients back through a layer: what the layer computes is made again from its input, then each stage in
// turn gives the gradients of its input, of its scales and of its norm.
import { attentionBackward } from "../../kernels/backward/attention_backward.ts";
import { rmsNormBackward } from "../../kernels/backward/norm_backward.ts";
import { ropeBackward } from "../../kernels/backward/rope_backward.ts";
import { siluBackward } from "../../kernels/backward/silu_backward.ts";
import { tileGradient } from "../../kernels/backward/tile_gradient.ts";
import { transposeHalves } from "../../kernels/backward/transpose_halves.ts";
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { uploadUniforms } from "../../kernels/gpu/uniforms.ts";
import { createF16Matrix, type F16Matrix } from "../../kernels/matrix/f16_matrix.ts";
import { buffersOf, placeRows } from "../../kernels/matrix/slabs.ts";
import { gemm } from "../../kernels/product/linear.ts";
import { dequantizeOnGpu } from "../../kernels/product/two_pass_gemv.ts";
import type { WeightMatrix } from "../../kernels/product/weight_format.ts";
import { outerUpdate, updateWords } from "../../kernels/quantize/outer_update.ts";
import { rmsNorm } from "../../kernels/tokens/rms_norm.ts";
import { HALF_BLOCK_CHANNELS } from "../../quant/format.ts";
import type { EngineLayer } from "../engine/engine_weights.ts";
import { attentionExtras, attentionShape } from "../engine/layer_operations.ts";
import type { ModelConfig } from "../llama/config.ts";
import { type Stage, STAGES, stageShape } from "../llama/layer.ts";
import type { Parameters } from "./parameters.ts";
import type { TuningBuffers } from "./pass_buffers.ts";

export interface BackwardContext {
  readonly gpu: Gpu;
  /** Owns what is made for it. */
  readonly scope: BufferScope;
  readonly config: ModelConfig;
  readonly buffers: TuningBuffers;
  /** Where gradients of parameters are summed. */
  readonly parameters: Parameters;
  /** f16 matrices that serve one layer after the other, by what they hold. */
  readonly halves: Map<string, F16Matrix>;
}

/**
 * Dispatches that take the gradient of a layer's output, in `hiddenGradient`, to that of its input, once the layer has
 * been computed up to the input of its last stage.
 *
 * @param input f32 [W, T, hidden]: the layer's input
 */
export async function layerBackward(
  context: BackwardContext,
  layer: EngineLayer,
  input: GPUBuffer,
): Promise<Dispatch[]> {
  const { gpu, config, buffers } = context;
  const { range, windowRange, windows, windowTokens, hidden, normed, qkv, mixed, gateUp, inner } = buffers;
  const { hiddenGradient, normedGradient, mixedGradient, qkvGradient, innerGradient } = buffers;
  const [qkvStage, oStage, gateUpStage, downStage] = STAGES;
  const shape = attentionShape(config);
  const stage = (of: Stage, x: GPUBuffer, yGradient: GPUBuffer, xGradient: GPUBuffer) =>
    stageBackward(context, of, layer.linears[of.name], { x, yGradient, xGradient });
  const attention = { qkv, cache: buffers.cache, out: mixed, outGradient: mixedGradient, qkvGradient };
  const norm = { hidden: config.hidden, epsilon: config.normEpsilon };
  return [
    ...await stage(downStage, inner, hiddenGradient, innerGradient),
    await siluBackward(gpu, range, config.intermediate, gateUp, innerGradient),
    ...await stage(gateUpStage, normed, gateUp, normedGradient),
    ...await normBackward(context, hidden, layer.mlpNorm),
    ...await stage(oStage, mixed, hiddenGradient, mixedGradient),
    ...await attentionBackward(gpu, shape, windowRange, windows, { ...attention, statistics: buffers.statistics }),
    await ropeBackward(gpu, shape, range, windowTokens, {
      rotations: buffers.rotations,
      before: buffers.qkvBefore,
      gradient: qkvGradient,
      ...attentionExtras(config, layer),
    }),
    await rmsNorm(gpu, range, { ...norm, x: input, weight: layer.attentionNorm, y: normed }),
    ...await stage(qkvStage, normed, qkvGradient, normedGradient),
    ...await normBackward(context, input, layer.attentionNorm),
  ];
}

/** Gradients of a norm, whose output's is in `normedGradient`. */
function normBackward(
  { gpu, config, buffers, parameters }: BackwardContext,
  x: GPUBuffer,
  weight: GPUBuffer,
): Promise<Dispatch[]> {
  return rmsNormBackward(gpu, buffers.range, {
    hidden: config.hidden,
    epsilon: config.normEpsilon,
    x,
    weight,
    yGradient: buffers.normedGradient,
    xGradient: buffers.hiddenGradient,
    weightGradient: parameters.normGradient(weight),
    partials: buffers.partials,
  });
}

/** Input of a stage, the gradient of its output and where that of its input goes, all f32 [tokens, width]. */
interface StageGradients {
  readonly x: GPUBuffer;
  readonly yGradient: GPUBuffer;
  readonly xGradient: GPUBuffer;
}

/** Gradients of a stage's input, which is replaced, and of its scales. */
async function stageBackward(
  context: BackwardContext,
  stage: Stage,
  parts: readonly WeightMatrix[],
  { x, yGradient, xGradient }: StageGradients,
): Promise<Dispatch[]> {
  const { gpu, config, buffers: { range, weightGradient }, parameters, scope } = context;
  const [rows, channels] = stageShape(config, stage);
  const transposed = await halvesOf(context, stage.name, channels, rows);
  const dispatches: Dispatch[] = [];
  for (const part of parts) dispatches.push(...await transposePart(context, part, transposed));
  dispatches.push(...await gemm(gpu, transposed, { range, x: yGradient, y: xGradient }));
  for (const part of parts) {
    if (part.kind !== "packed") continue;
    const [slab] = part.slabs;
    const [first, k] = [slab.firstRow, range.maxTokens];
    const update = { m: slab.rows, n: channels, k, aFirst: first, cFirst: first * channels };
    const [words] = await uploadUniforms(gpu, scope, [updateWords(update)]);
    dispatches.push(
      await outerUpdate(gpu, {
        range: update,
        words,
        a: { buffer: yGradient, stride: rows },
        b: { buffer: x, stride: channels },
        c: { buffer: weightGradient, stride: channels },
      }),
      await tileGradient(gpu, part, weightGradient, parameters.scalesGradient(part)),
    );
  }
  return dispatches;
}

/** Dispatches that put a part of a stage's weights into the stage's transposed matrix. */
async function transposePart(context: BackwardContext, part: WeightMatrix, transposed: F16Matrix): Promise<Dispatch[]> {
  const { gpu } = context;
  if (part.kind === "f16") return await transposeHalves(gpu, part, part.channels, transposed);
  const [{ firstRow, rows }] = part.slabs;
  const halves = await halvesOf(context, "decoded", rows, part.halfBlocks * HALF_BLOCK_CHANNELS);
  return [
    ...await dequantizeOnGpu(gpu, part, halves),
    ...await transposeHalves(gpu, placeRows(halves, firstRow, part.rows), part.channels, transposed),
  ];
}

/** A matrix that all layers use for the same. */
async function halvesOf(
  { gpu, scope, halves }: BackwardContext,
  use: string,
  rows: number,
  channels: number,
): Promise<F16Matrix> {
  const key = `${use} ${rows} ${channels}`;
  const made = halves.get(key) ?? await createF16Matrix(gpu, rows, channels);
  if (!halves.has(key)) buffersOf(made).forEach(scope.own);
  halves.set(key, made);
  return made;
}
