// Launcher of error feedback on the device: blocks of 128 channels in the order of quantization, each quantized group
// by group and its errors then passed on to the later channels of its stretch by one product. A stretch of 1024
// channels begins with the errors of all channels before it, by one product too. So no more than a stretch of carried
// errors is in memory, and products stay large. Its CPU reference is `quantizeTwobit` with feedback.
//
// Rounding decisions are made on sums in f32 here and in f64 there; where they differ, later weights make up for
// another error, so codes drift apart while the objective stays the same.
import { blockRanges } from "../gpu/block_ranges.ts";
import type { BufferScope } from "../gpu/buffer_scope.ts";
import type { DeviceFactor } from "./factorize.ts";
import type { Dispatch, Gpu, NamedBuffers } from "../gpu/gpu.ts";
import { groupBuffers, type QuantizingMatrix, roundingConstants } from "./group_quantizer.ts";
import { outerUpdate, type UpdateRange, updateWords } from "./outer_update.ts";
import { placeOfRow, slabsBefore, type SquareSlab } from "../matrix/square_matrix.ts";
import { uploadUniforms } from "../gpu/uniforms.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

const BLOCK_CHANNELS = 128;

/** Channels of a stretch: as many tiles of 4096 rows as an H200 works on at once; for all devices, as sums follow it. */
const STRETCH_CHANNELS = 1024;

/** Rows of a workgroup of feedback_block.wgsl. */
const TILE_ROWS = 16;

/** A block to quantize, or errors to carry: a = rows of a slab of the factor, b = errors, c = carried. */
type Step =
  | { readonly kind: "quantize"; readonly slab: SquareSlab; readonly words: readonly number[] }
  | { readonly kind: "carry"; readonly slab: SquareSlab; readonly range: UpdateRange };

export interface FedMatrix {
  readonly rows: number;
  readonly channels: number;
  /** f32 [channels, rows]: weights in the order of quantization, which their errors replace. */
  readonly transposed: GPUBuffer;
}

/** What a kernel that quantizes a block of channels binds of error feedback. */
export interface FedBlock {
  /** Uniform: first channel, channels, first channel of `carried`, the element of `factor` where its first row begins. */
  readonly block: GPUBufferBinding;
  /** f32: the slab of the factor that has the block's rows. */
  readonly factor: GPUBuffer;
  /** f32 [channels of a stretch, rows]: errors carried into it. */
  readonly carried: GPUBuffer;
}

/**
 * Dispatches that take error feedback through a matrix.
 *
 * @param scope takes over what they need
 * @param quantizeBlock makes the dispatch that quantizes a block, after which its errors take its weights' place
 */
export async function* feedBack(
  gpu: Gpu,
  scope: BufferScope,
  { rows, channels, transposed }: FedMatrix,
  factor: DeviceFactor,
  quantizeBlock: (block: FedBlock & NamedBuffers) => Promise<Dispatch>,
): AsyncGenerator<Dispatch> {
  if (factor.channels !== channels) {
    throw new TypeError(`factor is for ${factor.channels} channels, must be for ${channels}`);
  }
  const carried = await scope.storage("carried errors", 4 * rows * Math.min(channels, STRETCH_CHANNELS));
  const steps = blockRanges(channels, STRETCH_CHANNELS).flatMap((stretch) => stepsOf(factor, rows, stretch));
  const uniforms = await uploadUniforms(
    gpu,
    scope,
    steps.map((step) => step.kind === "quantize" ? step.words : updateWords(step.range)),
  );
  for (const [i, step] of steps.entries()) {
    const words = uniforms[i];
    const { buffer } = step.slab;
    if (step.kind === "carry") {
      const [a, b, c] = [{ buffer, stride: channels }, { buffer: transposed, stride: rows }, {
        buffer: carried,
        stride: rows,
      }];
      yield await outerUpdate(gpu, { range: step.range, words, a, b, c });
    } else {
      yield await quantizeBlock({ block: words, factor: buffer, carried });
    }
  }
}

/**
 * Dispatches that quantize a matrix with error feedback, once its groups are picked.
 *
 * @param scope takes over what they need
 */
export function quantizeWithFactor(
  gpu: Gpu,
  scope: BufferScope,
  matrix: QuantizingMatrix,
  factor: DeviceFactor,
): AsyncGenerator<Dispatch> {
  const shader = joinShader(wgsl, "feedback_block");
  const constants = { ...roundingConstants(matrix), channels: matrix.channels };
  return feedBack(gpu, scope, matrix, factor, (block) =>
    gpu.makeDispatch(shader, {
      constants,
      buffers: { ...groupBuffers(shader, matrix), ...block },
      workgroups: [Math.ceil(matrix.rows / TILE_ROWS), 1, 1],
    }));
}

/** Steps of a stretch of channels. */
function stepsOf({ matrix }: DeviceFactor, rows: number, stretch: { first: number; size: number }): Step[] {
  const end = stretch.first + stretch.size;
  const steps: Step[] = slabsBefore(matrix, stretch.first).map(({ slab, rows: before }) => ({
    kind: "carry",
    slab,
    range: { m: stretch.size, n: rows, k: before, aFirst: stretch.first, bFirst: slab.firstRow * rows },
  }));
  for (const { first, size } of blockRanges(stretch.size, BLOCK_CHANNELS)) {
    const begin = stretch.first + first;
    const { slab, first: at } = placeOfRow(matrix, begin);
    steps.push({ kind: "quantize", slab, words: [begin, size, stretch.first, at] });
    const next = begin + size;
    if (next === end) continue;
    const range = {
      m: end - next,
      n: rows,
      k: size,
      aFirst: at + next,
      bFirst: begin * rows,
      cFirst: (next - stretch.first) * rows,
    };
    steps.push({ kind: "carry", slab, range });
  }
  return steps;
}
