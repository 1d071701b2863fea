// Decoding a stored matrix to f16 on its way to a device, by the CPU's workers.
import { blockRanges } from "../../kernels/gpu/block_ranges.ts";
import { TILE_ROWS, tilesPerColumn } from "../../quant/format.ts";
import { sliceStored, type StoredTensor } from "../../quant/quantize.ts";
import { release, releaseArrays } from "../host/release.ts";
import type { QuantizePool } from "../quantize/quantize_tasks.ts";

/** Tiles that a worker decodes at a time: 64 rows, which are little in f32 in all workers together. */
const PART_TILES = 4;

/**
 * Decodes a stored matrix, which is freed, to f16 [rows, channels].
 *
 * @throws {RangeError} for a weight that is NaN or beyond f16
 */
export async function decodeHalves(pool: QuantizePool, stored: StoredTensor): Promise<Float16Array<ArrayBuffer>> {
  const { rows, channels } = stored.tensor;
  const parts = blockRanges(tilesPerColumn(rows), PART_TILES)
    .map(({ first, size }) => sliceStored(stored, first, first + size));
  releaseArrays(stored.tensor);
  const halves = new Float16Array(rows * channels);
  await pool.map("decodeHalf", parts, (_done, part, i) => {
    halves.set(part, i * PART_TILES * TILE_ROWS * channels);
    release(part);
  });
  return halves;
}
