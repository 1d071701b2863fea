// Sums over tokens of products of their inputs: Hessians and correlations, in f32 or by matrix units.
import { createBufferScope } from "../gpu/buffer_scope.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import { uploadUniforms } from "../gpu/uniforms.ts";
import { ACTIVATION_UNIT } from "../matrix/elementwise.ts";
import type { SquareMatrix, SquareSlab } from "../matrix/square_matrix.ts";
import { outerMatrices, outerUpdate, type Triangle, updateWords } from "./outer_update.ts";
import * as wgsl from "./wgsl.ts";

/** Tokens that turned inputs hold are a multiple of this, which matrix units take in a step. */
const STEP_TOKENS = 32;

/** Channels and tokens of a workgroup of turn_halves.wgsl. */
const TURNED_TILE = 64;

/** Inputs as they are summed: f32 [tokens, channels], or for matrix units f16 [channels, {@linkcode turnedTokens}]. */
export interface SummedInputs {
  readonly buffer: GPUBuffer;
  readonly channels: number;
  readonly tokens: number;
  readonly isTurned: boolean;
}

/** Tokens for which turned inputs have room. */
export function turnedTokens(tokens: number): number {
  return STEP_TOKENS * Math.ceil(tokens / STEP_TOKENS);
}

/**
 * Submits what makes of inputs what can be summed: with matrix units they are rounded and turned.
 *
 * @param x f32 [tokens, channels]
 * @param turned room for f16 [channels, {@linkcode turnedTokens}], with matrix units alone
 */
export async function summedInputs(
  gpu: Gpu,
  [tokens, channels]: readonly [tokens: number, channels: number],
  x: GPUBuffer,
  turned: GPUBuffer | undefined,
): Promise<SummedInputs> {
  if (!turned) return { buffer: x, channels, tokens, isTurned: false };
  gpu.submit([
    await gpu.makeDispatch(joinShader(wgsl, "turn_halves"), {
      constants: { tokens, channels, activation_unit: ACTIVATION_UNIT },
      buffers: { x, turned },
      workgroups: [Math.ceil(channels / TURNED_TILE), Math.ceil(turnedTokens(tokens) / TURNED_TILE), 1],
    }),
  ]);
  return { buffer: turned, channels, tokens, isTurned: true };
}

/**
 * Submits what adds the sum over tokens of a bᵀ to rows of a matrix, f32 [channels of a, channels of b].
 *
 * @param slabs its rows
 */
export async function addProducts(
  gpu: Gpu,
  a: SummedInputs,
  b: SummedInputs,
  slabs: readonly SquareSlab[],
  triangle: Triangle = "all",
): Promise<void> {
  const k = a.isTurned ? turnedTokens(a.tokens) : a.tokens;
  const rowStride = a.isTurned ? k : 1;
  const ranges = slabs.map(({ firstRow, rows }) => ({
    m: rows,
    n: b.channels,
    k,
    aFirst: firstRow * rowStride,
    cRow: firstRow,
  }));
  using scope = createBufferScope(gpu);
  const words = await uploadUniforms(gpu, scope, ranges.map(updateWords));
  const updates = slabs.map(({ buffer }, i) => {
    const c = { buffer, stride: b.channels };
    const update = { range: ranges[i], words: words[i], c, triangle };
    if (a.isTurned) return outerMatrices(gpu, { ...update, a: a.buffer, b: b.buffer });
    const rows = ({ buffer, channels }: SummedInputs) => ({ buffer, stride: channels });
    return outerUpdate(gpu, { ...update, a: rows(a), b: rows(b) });
  });
  gpu.submit(await Promise.all(updates));
}

/** Submits what adds the sum over tokens of x xᵀ to the upper triangle of a matrix. */
export async function addGram(gpu: Gpu, x: SummedInputs, { slabs }: SquareMatrix): Promise<void> {
  await addProducts(gpu, x, x, slabs, "upper");
}
