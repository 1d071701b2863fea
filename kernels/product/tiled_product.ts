// Products by tiles, for any kind of weights.
import type { DeviceProfile } from "../gpu/device_profile.ts";
import type { Constants, Dispatch, Gpu, NamedBuffers } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import { ACTIVATION_UNIT, toHalves } from "../matrix/elementwise.ts";
import { CHUNK_CHANNELS, type F16Matrix } from "../matrix/f16_matrix.ts";
import type { PackedMatrix } from "../matrix/packed_matrix.ts";
import { addParts, partialsBytesOf, type PartRows } from "./few/few_parts.ts";
import { checkGemmChannels, chooseTile, type GemmTile, multipliesMatrices, tileWorkgroups } from "./gemm_tile.ts";
import { type FewProduct, plainOutput, type RangeProduct } from "./weight_format.ts";
import * as wgsl from "./wgsl.ts";

/** Rows of a matrix, and how their weights are brought. */
export interface TiledRows extends PartRows {
  /** What else the shader that brings them takes. */
  readonly constants: Constants;
  /** Its buffers. */
  readonly buffers: NamedBuffers;
  /** The parts that it needs for a tile. */
  readonly parts?: (tile: GemmTile) => readonly (keyof typeof wgsl)[];
}

/** Whether products of a matrix with up to so many tokens take an input that is in f16, in units of ACTIVATION_UNIT. */
export function takesHalves(
  { profile }: Gpu,
  { rows, channels }: F16Matrix | PackedMatrix,
  maxTokens: number,
): boolean {
  return multipliesMatrices(chooseTile(profile, rows, maxTokens, true)) && channels % CHUNK_CHANNELS === 0;
}

/** Channels of which a part takes a whole number: packed weights are fetched by half blocks. */
const RUN_CHANNELS = 64;

/** Workgroups of tiles of matrices that a multiprocessor has room for at once. */
const RESIDENT = 2;

/** What a round of them takes to begin and to end, in steps, by the times in docs/kernel_notes.md ("Sixteen tokens"). */
const ROUND_STEPS = 10;

/**
 * The parts of the channels for a tile, with the steps that a workgroup takes one after the other: as many as give each
 * multiprocessor its workgroups, of the numbers that suit it the one by which the busiest is done first.
 */
export function planParts(
  tile: GemmTile,
  { multiprocessors }: DeviceProfile,
  rows: number,
  channels: number,
  maxTokens: number,
): { readonly splits: number; readonly run: number } {
  if (!tile.parts) return { splits: 1, run: 0 };
  const { stepChannels, workgroupsEach } = tile.parts;
  const [tokenTiles, rowTiles] = tileWorkgroups(tile, rows, maxTokens);
  const tiles = rowTiles * tokenTiles;
  const most = Math.ceil(channels / RUN_CHANNELS);
  const plans = workgroupsEach.map((each) => {
    const wanted = Math.floor((each * multiprocessors) / tiles);
    const run = Math.ceil(most / Math.min(most, Math.max(1, wanted)));
    const splits = Math.ceil(most / run);
    const own = Math.ceil((tiles * splits) / multiprocessors);
    return { splits, run, time: own * run + ROUND_STEPS * Math.ceil(own / RESIDENT) };
  });
  const { splits, run } = plans.reduce((best, plan) => plan.time < best.time ? plan : best);
  return { splits, run: (run * RUN_CHANNELS) / stepChannels };
}

/** Bytes of the sums that a product with up to so many tokens leaves in between, by the tile that is faster. */
export function partsBytes(
  { profile }: Gpu,
  { rows: allRows, slabs, channels }: F16Matrix | PackedMatrix,
  maxTokens: number,
): number {
  const tile = chooseTile(profile, allRows, maxTokens, true);
  const bytes = slabs.map(({ rows }) => {
    const { splits } = planParts(tile, profile, rows, channels, maxTokens);
    return splits === 1 ? 0 : partialsBytesOf(splits, rows, maxTokens, tile.tokens);
  });
  return Math.max(...bytes);
}

/** Whether matrix units multiply a matrix with up to so many tokens in parts of the channels. */
export function hasParts(gpu: Gpu, matrix: F16Matrix | PackedMatrix, maxTokens: number): boolean {
  return gpu.profile.matrixUnits && partsBytes(gpu, matrix, maxTokens) > 0;
}

/**
 * Dispatches that compute y[token, row] = sum of w[row, channel] x[token, channel] for some rows of a matrix; in parts of
 * the channels where there is room for their sums.
 *
 * @param kernel the shader that brings the weights
 * @throws {RangeError} when channels are not a multiple of 4
 */
export async function multiplyTiles(
  gpu: Gpu,
  kernel: "f16_gemm" | "fused_gemm",
  matrix: { readonly rows: number; readonly channels: number },
  own: TiledRows,
  product: RangeProduct & Partial<FewProduct>,
): Promise<Dispatch[]> {
  const { rows, firstRow, outliers } = own;
  const { channels } = matrix;
  const { range, x, y, partials, addToY } = product;
  checkGemmChannels(channels);
  const tile = product.tile ?? chooseTile(gpu.profile, matrix.rows, range.maxTokens, partials !== undefined);
  const { splits, run } = partials
    ? planParts(tile, gpu.profile, rows, channels, range.maxTokens)
    : { splits: 1, run: 0 };
  const [tokenTiles, rowTiles] = tileWorkgroups(tile, rows, range.maxTokens);
  const input = await tileInput(gpu, tile, channels, product);
  const place = splits > 1 ? { token_rows: 4 * Math.ceil(rows / 4), row_tiles: rowTiles, run } : {
    token_rows: matrix.rows,
    first_row: firstRow,
    add_to_y: addToY ? 1 : 0,
    ...(outliers && { outlier_residuals: outliers.residuals }),
  };
  const multiply = await gpu.makeDispatch(
    joinShader(wgsl, kernel, tile.part, ...input.parts, ...own.parts?.(tile) ?? []),
    {
      constants: {
        ...{ rows, channels, ...place, ...own.constants },
        ...(multipliesMatrices(tile) && { activation_unit: ACTIVATION_UNIT }),
      },
      buffers: { range: range.buffer, ...own.buffers, x: input.x, y: splits > 1 ? partials! : y },
      workgroups: [tokenTiles, rowTiles * splits, 1],
    },
  );
  const parts = { range, partials: partials!, splits, tokens: tile.tokens, x, unit: product.unit };
  return [
    // Once for all rows: the first ones are multiplied first.
    ...(firstRow === 0 ? input.dispatches : []),
    multiply,
    ...(splits > 1 ? [await addParts(gpu, matrix, own, parts, plainOutput(product), product.norm)] : []),
  ];
}

/** What a tile reads activations from, the parts that do it, and what makes it. */
async function tileInput(gpu: Gpu, tile: GemmTile, channels: number, { range, x, unit, halves }: RangeProduct) {
  if (!multipliesMatrices(tile)) return { x, parts: [], dispatches: [] };
  if (unit !== undefined) return { x, parts: ["half_turns"] as const, dispatches: [] };
  // A dispatch for few tokens would take longer than what it saves.
  const isRounded = halves !== undefined && tile.part === "matrix_tile" && channels % CHUNK_CHANNELS === 0;
  if (!isRounded) return { x, parts: ["float_turns"] as const, dispatches: [] };
  const round = await toHalves(gpu, x, halves, range.maxTokens * channels, 1 / ACTIVATION_UNIT);
  return { x: halves, parts: ["half_turns"] as const, dispatches: [round] };
}
