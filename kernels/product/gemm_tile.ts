// The shapes of tile that matrix-matrix kernels work in.
import type { DeviceProfile } from "../gpu/device_profile.ts";

/** Rows and tokens of a workgroup, with the shader part that multiplies them. */
export interface GemmTile {
  /** Rows of a workgroup. */
  readonly rows: number;
  /** Tokens of a workgroup. */
  readonly tokens: number;
  /** Part of the shaders that bring the weights. */
  readonly part: "wide_tile" | "narrow_tile" | "matrix_tile" | "matrix_few";
  /** For a tile whose channels can be spread over workgroups: those of a step, and how many workgroups suit a multiprocessor. */
  readonly parts?: { readonly stepChannels: number; readonly workgroupsEach: readonly number[] };
}

/** 128 rows x 128 tokens by matrix units, where there are some. */
export const MATRIX_TILE: GemmTile = {
  rows: 128,
  tokens: 128,
  part: "matrix_tile",
  parts: { stepChannels: 32, workgroupsEach: [2] },
};

/** 128 rows x 16 tokens by matrix units: for batches. */
export const MATRIX_FEW: GemmTile = {
  rows: 128,
  tokens: 16,
  part: "matrix_few",
  parts: { stepChannels: 64, workgroupsEach: [4, 2] },
};

/** Most tokens of that tile, which brings weights anew for each 16. */
const MATRIX_FEW_TOKENS = 64;

/** Whether a tile is of matrices, whose factors are f16. */
export function multipliesMatrices({ part }: GemmTile): boolean {
  return part === "matrix_tile" || part === "matrix_few";
}

/** 64 rows x 128 tokens: for prompts. */
export const WIDE_TILE: GemmTile = { rows: 64, tokens: 128, part: "wide_tile" };

/** 32 rows x 16 tokens: for small batches and the ends of prompts. */
export const NARROW_TILE: GemmTile = { rows: 32, tokens: 16, part: "narrow_tile" };

/**
 * The faster tile for a number of rows and tokens. Two wide workgroups of a multiprocessor are worked on at once, fewer
 * take as long; as long take 9.1 narrow ones of each, as measured on an H200 from 1 to 128 tokens. Where matrix units
 * make the others it is taken for 5.3, which is an assumption: not measured.
 *
 * @param inParts whether sums of parts of the channels can be added up, so that a few tiles fill the device
 */
export function chooseTile(
  { multiprocessors, matrixUnits }: DeviceProfile,
  rows: number,
  tokens: number,
  inParts = false,
): GemmTile {
  if (matrixUnits && inParts) return tokens <= MATRIX_FEW_TOKENS ? MATRIX_FEW : MATRIX_TILE;
  const [many, asNarrow] = matrixUnits ? [MATRIX_TILE, 700] : [WIDE_TILE, 1200];
  const workgroups = (tile: GemmTile) => Math.ceil(rows / tile.rows) * Math.ceil(tokens / tile.tokens);
  const waves = Math.ceil(workgroups(many) / (2 * multiprocessors));
  return workgroups(NARROW_TILE) > (asNarrow * waves * multiprocessors) / 132 ? many : NARROW_TILE;
}

/** Workgroups for a number of rows and tokens; tokens first, so that neighbours share weights in the cache. */
export function tileWorkgroups(tile: GemmTile, rows: number, tokens: number): [x: number, y: number, z: number] {
  return [Math.ceil(tokens / tile.tokens), Math.ceil(rows / tile.rows), 1];
}

/** @throws {RangeError} when channels cannot be read in fours */
export function checkGemmChannels(channels: number): void {
  if (channels % 4 !== 0) throw new RangeError(`matrix has ${channels} channels, must be a multiple of 4`);
}
