/**
 * Layers of a decode step that a dispatch takes together: what they have, and where it lies.
 *
 * @module
 */
import { attentionRowLanes, type DecodeAttentionBuffers } from "../attention/decode_attention.ts";
import { IS_DENO } from "../gpu/dialect.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { AttentionShape } from "../attention/key_value_cache.ts";
import { type PackedMatrix, type PackedSlab, planesOf } from "../matrix/packed_matrix.ts";
import type { Plane } from "../gpu/plane.ts";

/** Sizes that all layers of a model have in common. */
export interface LayerShape {
  /** Elements of the residual stream. */
  readonly hidden: number;
  /** Rows of gate, and of up. */
  readonly intermediate: number;
  /** Added under the roots of the layer's norms. */
  readonly normEpsilon: number;
  /** Heads of its attention. */
  readonly attention: AttentionShape;
}

/** The packed matrices of a layer, whose planes lie one after the other in shared buffers, see {@linkcode sharePlanes}. */
export interface LayerMatrices {
  /** Rows of q, k and v. */
  readonly qkv: PackedMatrix;
  /** Attention's output layer. */
  readonly o: PackedMatrix;
  /** Rows of gate, then of up. */
  readonly gateUp: PackedMatrix;
  /** The MLP's output layer. */
  readonly down: PackedMatrix;
}

/** One layer of a decode step. */
export interface DecodeLayer extends Pick<DecodeAttentionBuffers, "cache" | "bias" | "headNorm"> {
  /** Its matrices. */
  readonly matrices: LayerMatrices;
  /** f32 [hidden]: weight of the norm before q, k and v. */
  readonly attentionNorm: GPUBuffer;
  /** f32 [hidden]: weight of the norm before gate and up. */
  readonly mlpNorm: GPUBuffer;
}

/** Consecutive layers that share the buffers of their planes and of their caches. */
export type LayerRun = readonly DecodeLayer[];

const STORAGE_BUFFERS = 16;
/** Planes of a matrix that have the same size in each layer: all but outliers. */
const PLANES_ALIKE = 4;

/** Puts consecutive layers that share their buffers together. */
export function shareRuns(layers: readonly DecodeLayer[]): LayerRun[] {
  const runs: DecodeLayer[][] = [];
  for (const layer of layers) {
    const last = runs.at(-1);
    if (last && buffersOf(last[0]).every((buffer, i) => buffer === buffersOf(layer)[i])) last.push(layer);
    else runs.push([layer]);
  }
  return runs;
}

function buffersOf(layer: DecodeLayer): GPUBuffer[] {
  const { keys, values } = layer.cache;
  return [...planesOf(slabsOf(layer)[0]), keys, values].map(({ buffer }) => buffer);
}

/** In the order of the stages. */
export function matricesOf({ qkv, o, gateUp, down }: LayerMatrices): PackedMatrix[] {
  return [qkv, o, gateUp, down];
}

/** The only slab of each matrix. */
export function slabsOf({ matrices }: DecodeLayer): PackedSlab[] {
  return matricesOf(matrices).map(({ slabs }) => slabs[0]);
}

/** Whether the device has what the kernel needs, and all layers are alike and lie alike. */
export function suits(
  gpu: Gpu,
  shape: LayerShape,
  layers: readonly DecodeLayer[],
  runs: readonly LayerRun[],
): boolean {
  const { hidden, intermediate, attention } = shape;
  const { heads, headSize } = attention;
  const [{ bias, headNorm }] = layers;
  const stride = planeStrides(runs);
  return IS_DENO && layers.length > 1 && gpu.profile.subgroupSize >= attentionRowLanes(attention) &&
    gpu.profile.subgroupSize <= 64 &&
    gpu.device.limits.maxStorageBuffersPerShaderStage >= STORAGE_BUFFERS &&
    [hidden, intermediate, heads * headSize, headSize].every((channels) => channels % 16 === 0) &&
    layers.every((layer) =>
      !layer.bias === !bias && !layer.headNorm === !headNorm &&
      matricesOf(layer.matrices).every(({ slabs, refineEvery }) => slabs.length === 1 && refineEvery === 8) &&
      slabsOf(layer).every((slab) => planesOf(slab).every(({ buffer }, i) => buffer === buffersOf(layer)[i]))
    ) &&
    runs.every((run) =>
      run.every((layer, i) =>
        offsetsWithin(layer, run[0]).every((offset, j) =>
          offset === offsetsWithin(layers[0], layers[0])[j] + i * stride[j % stride.length]
        ) &&
        layer.cache.keys.offset === run[0].cache.keys.offset + i * layer.cache.keys.size &&
        layer.cache.values.offset === run[0].cache.values.offset + i * layer.cache.values.size
      )
    );
}

/** Byte offsets of the planes that lie alike in all layers. */
function planeOffsets(layer: DecodeLayer): number[] {
  return slabsOf(layer).flatMap(({ base, refine, meta, tileScale }) => [base, refine, meta, tileScale])
    .map(({ offset }) => offset);
}

/** The same from where the planes of a run's first layer start, which is where they are bound. */
function offsetsWithin(layer: DecodeLayer, first: DecodeLayer): number[] {
  const starts = planeOffsets(first);
  return planeOffsets(layer).map((offset, i) => offset - starts[i % PLANES_ALIKE]);
}

/** Bytes from a layer to the next in each of those planes; 0 where each layer has its own. */
export function planeStrides(runs: readonly LayerRun[]): number[] {
  const longest = runs.reduce((most, run) => run.length > most.length ? run : most);
  const first = planeOffsets(longest[0]).slice(0, PLANES_ALIKE);
  return longest.length === 1 ? first.map(() => 0) : first.map((offset, i) => planeOffsets(longest[1])[i] - offset);
}

/** First word of the outlier planes, counted from the first of the run, and of the residuals of each matrix. */
export function outlierStarts(layer: DecodeLayer, first: Plane): number[] {
  return slabsOf(layer).flatMap((
    { outliers, outlierResiduals },
  ) => [(outliers.offset - first.offset) / 4, outlierResiduals]);
}
