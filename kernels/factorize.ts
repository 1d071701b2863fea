/**
 * Factoring Hessians on the device: H = V Vᵀ with V upper triangular, in blocks of 64 channels from the last upwards
 * (quant/cholesky.ts is the CPU twin): factor a diagonal block, solve for the rest of its rows, update what lies above.
 *
 * @module
 */
import { GROUP_CHANNELS } from "../quant/format.ts";
import { type FeedbackSettings, MAX_TRIES, nextDamping, orderChannels } from "../quant/error_feedback.ts";
import type { BufferScope } from "./buffer_scope.ts";
import { createBufferScope } from "./buffer_scope.ts";
import type { Dispatch, Gpu } from "./gpu.ts";
import { outerUpdate, type UpdateRange, updateWords } from "./outer_update.ts";
import { uploadUniforms } from "./uniforms.ts";
import dampCode from "./damp_hessian.wgsl" with { type: "text" };
import diagonalCode from "./diagonal.wgsl" with { type: "text" };
import factorCode from "./factor_block.wgsl" with { type: "text" };
import mirrorCode from "./mirror_factor.wgsl" with { type: "text" };
import solveCode from "./solve_block.wgsl" with { type: "text" };

/** The whole shader of each kernel. */
export const FACTORIZE_CODE = {
  diagonal: diagonalCode,
  damp_hessian: dampCode,
  factor_block: factorCode,
  solve_block: solveCode,
  mirror_factor: mirrorCode,
} as const;

/** Channels of a block; solve_block.wgsl and factor_block.wgsl are written for it. */
export const FACTOR_BLOCK = 64;

/** Threads of a workgroup of all these kernels. */
const THREADS = 64;

/** What error feedback on the device needs of a Hessian: quant's `Feedback` in device memory. */
export interface DeviceFactor {
  /** Input channels. */
  readonly channels: number;
  /** u32 [channels / 16]: the group at each position of the order of quantization. */
  readonly groupOrder: GPUBuffer;
  /** f32 [channels, channels]: V in the upper triangle, Vᵀ in the lower, in quantization order. */
  readonly matrix: GPUBuffer;
  /** f32 [blocks, 64, 64]: the diagonal blocks of Vᵀ. */
  readonly blocks: GPUBuffer;
  /** What was added to the Hessian's diagonal. */
  readonly added: number;
}

/**
 * Factors a Hessian; tries more damping where it isn't positive definite in f32.
 *
 * @param scope takes over the factor's buffers
 * @param hessian f32 [channels, channels], of which the upper triangle is read
 * @throws {RangeError} when it holds NaN or infinity, cannot be factored, or its order would split groups
 */
export async function factorize(
  gpu: Gpu,
  scope: BufferScope,
  hessian: GPUBuffer,
  channels: number,
  settings: FeedbackSettings,
): Promise<DeviceFactor> {
  if (settings.order === "channels") throw new RangeError("order is channels, must be groups or natural on the device");
  const diagonal = await readDiagonal(gpu, hessian, channels);
  const bad = diagonal.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw new RangeError(`Hessian holds ${diagonal[bad]} on its diagonal at ${bad}, must be finite`);
  const order = orderChannels(diagonal, settings.order).filter((_, i) => i % GROUP_CHANNELS === 0);
  const groupOrder = await scope.upload("group order", Uint32Array.from(order, (first) => first / GROUP_CHANNELS));
  const matrix = await scope.storage("factor", 4 * channels * channels);
  const blocks = await scope.storage("diagonal blocks", 4 * Math.ceil(channels / FACTOR_BLOCK) * FACTOR_BLOCK ** 2);
  const meanDiagonal = diagonal.reduce((sum, value) => sum + value, 0) / channels;
  let damping = settings.damping;
  for (let attempt = 0; attempt < MAX_TRIES; attempt++, damping = nextDamping(damping)) {
    const added = damping * meanDiagonal;
    if (await tryToFactor(gpu, { hessian, channels, groupOrder, matrix, blocks, added })) {
      return { channels, groupOrder, matrix, blocks, added };
    }
  }
  throw new RangeError(
    `Hessian of ${channels} channels is not positive definite in f32 with damping from ${settings.damping} up to ${
      damping / 3
    } of its mean diagonal`,
  );
}

async function readDiagonal(gpu: Gpu, hessian: GPUBuffer, size: number): Promise<Float64Array> {
  using scope = createBufferScope(gpu);
  const diagonal = await scope.storage("diagonal", 4 * size);
  const kernel = await gpu.createKernel("diagonal", diagonalCode, { size });
  const bindings = gpu.bind(kernel, [hessian, diagonal]);
  gpu.submit([{ kernel, bindings, workgroups: [Math.ceil(size / THREADS), 1, 1] }]);
  return Float64Array.from(await gpu.readF32(diagonal));
}

type Attempt = DeviceFactor & { readonly hessian: GPUBuffer };

/** Damps and factors; returns whether every pivot was positive. */
async function tryToFactor(gpu: Gpu, { hessian, channels, groupOrder, matrix, blocks, added }: Attempt) {
  using scope = createBufferScope(gpu);
  const damping = await gpu.createBuffer("damping", 16, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
  gpu.write(scope.own(damping), Float32Array.of(added, 0, 0, 0));
  const diagonal = await scope.storage("diagonal", 4 * channels);
  const failed = await scope.storage("failed pivots", 4);
  const panel = await scope.storage("panel", 4 * FACTOR_BLOCK * channels);
  const damp = await gpu.createKernel("damp_hessian", dampCode, { size: channels });
  const columns = Math.ceil(channels / THREADS);
  const dampedBuffers = [hessian, groupOrder, damping, matrix, diagonal];
  const dispatches: Dispatch[] = [
    { kernel: damp, bindings: gpu.bind(damp, dampedBuffers), workgroups: [columns, channels, 1] },
    ...await factorBlocks(gpu, scope, channels, { matrix, blocks, diagonal, failed, panel }),
  ];
  const mirror = await gpu.createKernel("mirror_factor", mirrorCode, { size: channels });
  dispatches.push({ kernel: mirror, bindings: gpu.bind(mirror, [matrix]), workgroups: [columns, channels, 1] });
  gpu.submit(dispatches);
  return new Uint32Array(await gpu.read(failed))[0] === 0;
}

interface FactorBuffers {
  readonly matrix: GPUBuffer;
  readonly blocks: GPUBuffer;
  readonly diagonal: GPUBuffer;
  readonly failed: GPUBuffer;
  /** f32 [64, channels]: solved rows of a block. */
  readonly panel: GPUBuffer;
}

async function factorBlocks(
  gpu: Gpu,
  scope: BufferScope,
  size: number,
  { matrix, blocks, diagonal, failed, panel }: FactorBuffers,
): Promise<Dispatch[]> {
  const factor = await gpu.createKernel("factor_block", factorCode, { size });
  const ranges = blockRanges(size).reverse();
  const updates = ranges.map(({ first, size }): UpdateRange => ({ m: first, n: first, k: size }));
  const words = await uploadUniforms(gpu, [
    ...ranges.map(({ first, size }) => [first, size, first]),
    ...updates.map(updateWords),
  ]);
  scope.own(words.buffer);
  const dispatches: Dispatch[] = [];
  const rows = { buffer: panel, stride: size };
  for (const [i, { first }] of ranges.entries()) {
    const range = words.bindings[i];
    const buffers = [range, matrix, diagonal, blocks, failed];
    dispatches.push({ kernel: factor, bindings: gpu.bind(factor, buffers), workgroups: [1, 1, 1] });
    if (first === 0) continue;
    dispatches.push(await solveBlock(gpu, range, first, blocks, { buffer: matrix, stride: size }, panel, true));
    const target = { buffer: matrix, stride: size };
    dispatches.push(
      await outerUpdate(gpu, updates[i], words.bindings[ranges.length + i], rows, rows, target, -1, "lower"),
    );
  }
  return dispatches;
}

/** First channel and size of each block. */
export function blockRanges(channels: number, block = FACTOR_BLOCK): { first: number; size: number }[] {
  return Array.from({ length: Math.ceil(channels / block) }, (_, i) => ({
    first: i * block,
    size: Math.min(block, channels - i * block),
  }));
}

/**
 * Dispatch that solves V z = b, or Vᵀ z = b, for the rows of one diagonal block: see solve_block.wgsl.
 *
 * @param range uniform: first row, rows, columns
 * @param x f32 rows of `stride`: b, replaced by z
 * @param panel f32 [64, stride]: receives z
 */
export async function solveBlock(
  gpu: Gpu,
  range: GPUBufferBinding,
  columns: number,
  blocks: GPUBuffer,
  x: { readonly buffer: GPUBuffer; readonly stride: number },
  panel: GPUBuffer,
  backwards: boolean,
): Promise<Dispatch> {
  const constants = { stride: x.stride, backwards: backwards ? 1 : 0 };
  const kernel = await gpu.createKernel("solve_block", solveCode, constants);
  const bindings = gpu.bind(kernel, [range, blocks, x.buffer, panel]);
  return { kernel, bindings, workgroups: [Math.ceil(columns / THREADS), 1, 1] };
}
