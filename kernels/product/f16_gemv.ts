// Launcher of the f16 matrix-vector kernel.
import { CHUNK_CHANNELS, type F16Matrix } from "../matrix/f16_matrix.ts";
import {
  type AttentionInput,
  checkOutput,
  type Epilogue,
  outputConstant,
  type Prologue,
  rowsPerOutput,
} from "./prologue_epilogue.ts";
import { type DeviceProfile, evenWorkgroups } from "../gpu/device_profile.ts";
import { type Dispatch, type Gpu, spreadWorkgroups } from "../gpu/gpu.ts";
import { chooseTeam } from "../gpu/team.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

/**
 * Pairs of rows of a workgroup: two where x is normed on the way, whose loads then serve four rows, and where there are
 * enough rows to keep the device busy with half as many workgroups. A silu_product was slower with two.
 */
function choosePairs(profile: DeviceProfile, input: F16GemvInput, output: Epilogue, rows: number): 1 | 2 {
  const isEnough = rows >= 64 * evenWorkgroups(profile);
  return input.kind === "rms_norm" && output.kind !== "silu_product" && isEnough ? 2 : 1;
}

/** Input of an f16 product; f32 needs channels in eights. */
export type F16GemvInput =
  /** x f16 [tokens, chunks * 8], padded with zeros; such as {@linkcode reduceSplitsToF16} makes. */
  | { readonly kind: "half"; readonly x: GPUBuffer }
  | Exclude<Prologue, AttentionInput>;

/**
 * Dispatches that compute y from W x with f16 weights.
 *
 * @param input x, or what it is made of
 * @param output where the product goes, and how
 * @throws {TypeError} for a silu_product whose gate and up rows don't pair or lie in different slabs
 * @throws {RangeError} when x is shorter: devices differ in what is read past its end
 */
export async function f16Gemv(
  gpu: Gpu,
  matrix: F16Matrix,
  input: F16GemvInput,
  output: Epilogue,
  { tokens = 1 }: { readonly tokens?: number } = {},
): Promise<Dispatch[]> {
  checkOutput(output, matrix.rows, matrix.slabs.length);
  checkInput(input, matrix, tokens);
  const team = chooseTeam(gpu.profile);
  const perOutput = rowsPerOutput(output);
  const tokenRows = matrix.rows / perOutput;
  const shader = joinShader(wgsl, "f16_gemv", input.kind === "half" ? "half_chunks" : "float_chunks", team.exchange);
  const y = { buffer: output.y.buffer, offset: output.y.offset ?? 0, size: tokens * tokenRows * 4 };
  return await Promise.all(matrix.slabs.map(({ firstRow, rows, weights }) => {
    const pairs = choosePairs(gpu.profile, input, output, rows);
    const [columns, lines] = spreadWorkgroups(Math.ceil(rows / 2 / pairs));
    return gpu.makeDispatch(shader, {
      constants: {
        rows,
        token_rows: tokenRows,
        y_row: firstRow,
        chunks: matrix.chunks,
        team: team.lanes,
        workgroup_size: team.lanes,
        pairs,
        output_kind: outputConstant(output),
        ...(input.kind === "rms_norm" && { is_norm: 1, epsilon: input.epsilon }),
      },
      buffers: {
        weights,
        x: input.x,
        y,
        ...(input.kind !== "half" && { norm_weight: input.kind === "rms_norm" ? input.weight : input.x }),
      },
      workgroups: [columns, lines, tokens],
    });
  }));
}

/**
 * Dispatches that compute y from W x for some tokens, up to eight with each load of weights.
 *
 * @param x f32 [tokens, channels], channels in eights
 */
export async function f16Several(
  gpu: Gpu,
  matrix: F16Matrix,
  x: GPUBuffer,
  output: Epilogue,
  tokens: number,
): Promise<Dispatch[]> {
  checkInput({ kind: "vector", x }, matrix, tokens);
  const team = chooseTeam(gpu.profile);
  const shader = joinShader(wgsl, "f16_several", team.exchange);
  const y = { buffer: output.y.buffer, offset: output.y.offset ?? 0, size: tokens * matrix.rows * 4 };
  const fours = tokens <= 4 ? 1 : 2;
  return await Promise.all(matrix.slabs.map(({ firstRow, rows, weights }) => {
    const [columns, lines] = spreadWorkgroups(Math.ceil(rows / 4));
    return gpu.makeDispatch(shader, {
      constants: {
        rows,
        token_rows: matrix.rows,
        y_row: firstRow,
        all_tokens: tokens,
        fours,
        chunks: matrix.chunks,
        team: team.lanes,
        workgroup_size: team.lanes,
        output_kind: outputConstant(output),
      },
      buffers: { weights, x, y },
      workgroups: [columns, lines, Math.ceil(tokens / 4 / fours)],
    });
  }));
}

/** Refuses an input that doesn't fit the matrix. */
function checkInput({ kind, x }: F16GemvInput, { channels, chunks }: F16Matrix, tokens: number): void {
  if (kind !== "half" && channels % CHUNK_CHANNELS !== 0) {
    throw new TypeError(`matrix has ${channels} channels, must have a multiple of ${CHUNK_CHANNELS} for f32 input`);
  }
  const wanted = tokens * chunks * CHUNK_CHANNELS * (kind === "half" ? 2 : 4);
  if (x.size < wanted) throw new RangeError(`x has ${x.size} bytes, must have ${wanted} or more`);
}
