// Factoring Hessians on the device: H = V Vᵀ with V upper triangular, in blocks of 64 channels from the last upwards
// (quant/cholesky.ts is the CPU reference): factor a diagonal block, solve for the rest of its rows, update what lies
// above.
//
// All in one matrix: the Hessian in its upper triangle, what is factored in its lower one, so that more damping can be
// tried; in the end V takes the Hessian's place.
import { GROUP_CHANNELS } from "../../quant/format.ts";
import { type FeedbackSettings, MAX_TRIES, nextDamping, orderChannels } from "../../quant/error_feedback.ts";
import { blockRanges } from "../gpu/block_ranges.ts";
import { type BufferScope, createBufferScope } from "../gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { submitAsMade } from "../gpu/run_ahead.ts";
import { outerUpdate, type Rows, type UpdateRange, updateWords } from "./outer_update.ts";
import { PANEL_ROWS, placeOfRow, slabsBefore, type SquareMatrix } from "../matrix/square_matrix.ts";
import { uploadUniforms } from "../gpu/uniforms.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

/** Channels of a block; solve_block.wgsl and factor_block.wgsl are written for it. */
export const FACTOR_BLOCK = 64;

const THREADS = 64;

/** Right-hand sides of a workgroup of solve_block.wgsl. */
const SOLVED_COLUMNS = 32;

export interface DeviceFactor {
  /** Input channels. */
  readonly channels: number;
  /** Channels that stay together in the order of quantization: groups of 16, or each by itself. */
  readonly width: number;
  /** [channels / width]: the group of so many channels at each position of that order. */
  readonly order: Uint32Array<ArrayBuffer>;
  /** u32 [channels]: the channel at each position. */
  readonly channelOrder: GPUBuffer;
  /** f64 [channels]: the Hessian's diagonal, before damping. */
  readonly diagonal: Float64Array<ArrayBuffer>;
  /** f32 [channels, channels]: V in the upper triangle, Vᵀ in the lower, in quantization order. */
  readonly matrix: SquareMatrix;
  /** f32 [blocks, 64, 64]: the diagonal blocks of Vᵀ. */
  readonly blocks: GPUBuffer;
  /** What was added to the Hessian's diagonal. */
  readonly added: number;
}

/**
 * Factors a Hessian in its place; tries more damping where it isn't positive definite in f32.
 *
 * @param scope takes over the factor's other buffers
 * @param hessian of which the upper triangle is read; becomes the factor's matrix
 * @throws {RangeError} when it holds NaN or infinity or cannot be factored
 */
export async function factorize(
  gpu: Gpu,
  scope: BufferScope,
  hessian: SquareMatrix,
  settings: FeedbackSettings,
): Promise<DeviceFactor> {
  const channels = hessian.size;
  const diagonal = await readDiagonal(gpu, hessian);
  const bad = diagonal.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw new RangeError(`Hessian holds ${diagonal[bad]} on its diagonal at ${bad}, must be finite`);
  const ordered = Uint32Array.from(orderChannels(diagonal, settings.order));
  const width = settings.order === "channels" ? 1 : GROUP_CHANNELS;
  const order = ordered.filter((_, i) => i % width === 0).map((first) => first / width);
  const channelOrder = await scope.upload("channel order", ordered);
  const blocks = await scope.storage("diagonal blocks", 4 * Math.ceil(channels / FACTOR_BLOCK) * FACTOR_BLOCK ** 2);
  const meanDiagonal = diagonal.reduce((sum, value) => sum + value, 0) / channels;
  let damping = settings.damping;
  for (let attempt = 0; attempt < MAX_TRIES; attempt++, damping = nextDamping(damping)) {
    const added = damping * meanDiagonal;
    const damped = Float32Array.from(ordered, (channel) => damp(diagonal[channel], added));
    if (await tryToFactor(gpu, { matrix: hessian, channelOrder, blocks, damped })) {
      return { channels, width, order, channelOrder, diagonal, matrix: hessian, blocks, added };
    }
  }
  throw new RangeError(
    `Hessian of ${channels} channels is not positive definite in f32 with damping from ${settings.damping} up to ${
      damping / 3
    } of its mean diagonal`,
  );
}

/** The channel at each position of the order of quantization. */
export function channelsOf({ channels, width, order }: DeviceFactor): Uint32Array<ArrayBuffer> {
  return Uint32Array.from({ length: channels }, (_, i) => width * order[Math.floor(i / width)] + i % width);
}

/** A zero on the diagonal is the mark of a channel that is never active. */
function damp(value: number, added: number): number {
  return value === 0 ? 1 : value + Math.fround(added);
}

/** Reads the diagonal of a square matrix: f64 [size]. */
export async function readDiagonal(gpu: Gpu, { size, slabs }: SquareMatrix): Promise<Float64Array<ArrayBuffer>> {
  using scope = createBufferScope(gpu);
  const diagonal = await scope.storage("diagonal", 4 * size);
  const words = await uploadUniforms(gpu, scope, slabs.map(({ firstRow, rows }) => [firstRow, rows]));
  const dispatches = slabs.map(({ rows, buffer }, i) =>
    gpu.makeDispatch(joinShader(wgsl, "diagonal"), {
      constants: { size },
      buffers: { range: words[i], slab: buffer, diagonal },
      workgroups: [Math.ceil(rows / THREADS), 1, 1],
    })
  );
  gpu.submit(await Promise.all(dispatches));
  return Float64Array.from(await gpu.readF32(diagonal));
}

interface Attempt extends Pick<DeviceFactor, "matrix" | "channelOrder" | "blocks"> {
  /** The damped diagonal in quantization order. */
  readonly damped: Float32Array<ArrayBuffer>;
}

async function tryToFactor(gpu: Gpu, { matrix, channelOrder, blocks, damped }: Attempt): Promise<boolean> {
  using scope = createBufferScope(gpu);
  const diagonal = await scope.upload("diagonal", damped);
  const failed = await scope.storage("failed pivots", 4);
  const panel = await scope.storage("panel", 4 * PANEL_ROWS * matrix.size);
  await orderHessian(gpu, scope, { matrix, channelOrder, diagonal, panel });
  await submitAsMade(gpu, factorBlocks(gpu, scope, { matrix, blocks, diagonal, failed, panel }));
  if (new Uint32Array(await gpu.read(failed))[0] !== 0) return false;
  await symmetrizeFactor(gpu, scope, matrix, panel);
  return true;
}

/** Panels of rows, and for each the uniforms of its dispatches, one a slab. */
async function panelRanges(gpu: Gpu, scope: BufferScope, { size, slabs }: SquareMatrix) {
  const panels = blockRanges(size, PANEL_ROWS);
  const words = await uploadUniforms(
    gpu,
    scope,
    panels.flatMap(({ first, size }) => slabs.map(({ firstRow, rows }) => [first, size, firstRow, rows])),
  );
  return panels.map(({ first, size: rows }, i) => ({
    first,
    rows,
    words: words.slice(i * slabs.length, (i + 1) * slabs.length),
  }));
}

interface OrderBuffers extends Pick<DeviceFactor, "matrix" | "channelOrder"> {
  /** f32 [channels]: the damped diagonal in quantization order. */
  readonly diagonal: GPUBuffer;
  /** f32 [{@linkcode PANEL_ROWS}, channels]: rows on their way. */
  readonly panel: GPUBuffer;
}

async function orderHessian(
  gpu: Gpu,
  scope: BufferScope,
  { matrix, channelOrder, diagonal, panel }: OrderBuffers,
): Promise<void> {
  const { size, slabs } = matrix;
  for (const { first, rows, words } of await panelRanges(gpu, scope, matrix)) {
    const { slab, first: at } = placeOfRow(matrix, first);
    // With what lies beyond the diagonal, the Hessian itself, there and back.
    gpu.copy(slab.buffer, 4 * at, panel, 0, 4 * rows * size);
    const dispatches = slabs.map(({ buffer }, i) =>
      gpu.makeDispatch(joinShader(wgsl, "order_hessian"), {
        constants: { size },
        buffers: { range: words[i], slab: buffer, channel_order: channelOrder, diagonal, panel },
        workgroups: [Math.ceil((first + rows) / THREADS), rows, 1],
      })
    );
    gpu.submit(await Promise.all(dispatches));
    gpu.copy(panel, 0, slab.buffer, 4 * at, 4 * rows * size);
  }
}

async function symmetrizeFactor(gpu: Gpu, scope: BufferScope, matrix: SquareMatrix, panel: GPUBuffer): Promise<void> {
  const { size, slabs } = matrix;
  for (const { first, rows, words } of await panelRanges(gpu, scope, matrix)) {
    const { slab, first: at } = placeOfRow(matrix, first);
    gpu.copy(slab.buffer, 4 * at, panel, 0, 4 * rows * size);
    const dispatches = slabsBefore(matrix, first + rows).map(({ slab, rows: above }) =>
      gpu.makeDispatch(joinShader(wgsl, "symmetrize_factor"), {
        constants: { size },
        buffers: { range: words[slabs.indexOf(slab)], panel, slab: slab.buffer },
        workgroups: [Math.ceil(rows / THREADS), above, 1],
      })
    );
    gpu.submit(await Promise.all(dispatches));
  }
}

interface FactorBuffers extends Omit<OrderBuffers, "channelOrder"> {
  readonly blocks: GPUBuffer;
  readonly failed: GPUBuffer;
}

async function* factorBlocks(
  gpu: Gpu,
  scope: BufferScope,
  { matrix, blocks, diagonal, failed, panel }: FactorBuffers,
): AsyncGenerator<Dispatch> {
  const stride = matrix.size;
  const steps = blockRanges(stride, FACTOR_BLOCK).reverse().map(({ first, size }) => ({
    first,
    size,
    updates: slabsBefore(matrix, first).map(({ slab, rows }) => ({
      slab,
      range: { m: rows, n: first, k: size, aFirst: slab.firstRow, cRow: slab.firstRow } satisfies UpdateRange,
    })),
  }));
  const words = await uploadUniforms(
    gpu,
    scope,
    steps.flatMap(({ first, size, updates }) => [
      [first, size, first, placeOfRow(matrix, first).first / stride],
      ...updates.map(({ range }) => updateWords(range)),
    ]),
  );
  const uniforms = words.values();
  const rows = { buffer: panel, stride };
  for (const { first, updates } of steps) {
    const range = uniforms.next().value!;
    const { buffer } = placeOfRow(matrix, first).slab;
    yield await gpu.makeDispatch(joinShader(wgsl, "factor_block"), {
      constants: { size: stride },
      buffers: { range, slab: buffer, diagonal, blocks, failed },
      workgroups: [1, 1, 1],
    });
    const x = { buffer, stride };
    if (first > 0) {
      yield await solveBlock(gpu, { range, columns: first, blocks, x, panel, backwards: true });
    }
    for (const { slab, range } of updates) {
      const c = { buffer: slab.buffer, stride };
      const words = uniforms.next().value!;
      yield await outerUpdate(gpu, { range, words, a: rows, b: rows, c, factor: -1, triangle: "lower" });
    }
  }
}

/** V z = b, or Vᵀ z = b, for the rows of one diagonal block: see solve_block.wgsl. */
export interface BlockSolution extends Pick<DeviceFactor, "blocks"> {
  /** Uniform: first row, rows, columns, the first row's place in `x`. */
  readonly range: GPUBufferBinding;
  /** Right-hand sides. */
  readonly columns: number;
  /** b, replaced by z. */
  readonly x: Rows;
  /** f32 [64, stride of x]: receives z. */
  readonly panel: GPUBuffer;
  /** V rather than Vᵀ. */
  readonly backwards: boolean;
}

export function solveBlock(
  gpu: Gpu,
  { range, columns, blocks, x, panel, backwards }: BlockSolution,
): Promise<Dispatch> {
  return gpu.makeDispatch(joinShader(wgsl, "solve_block"), {
    constants: { stride: x.stride, backwards: backwards ? 1 : 0 },
    buffers: { range, blocks, x: x.buffer, panel },
    workgroups: [Math.ceil(columns / SOLVED_COLUMNS), 1, 1],
  });
}
