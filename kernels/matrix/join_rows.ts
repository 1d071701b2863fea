// Matrices on the device whose rows follow each other in one, which is multiplied at once.
import { TILE_ROWS } from "../../quant/format.ts";
import { allOrNone } from "../gpu/buffer_scope.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { whole } from "../gpu/plane.ts";
import { type LayerMatrix, planeOf, PLANES } from "./share_planes.ts";

/**
 * Makes a matrix of the rows of some, in buffers of its own; nothing where they differ in more than their rows, have
 * outliers or don't fit in one slab.
 *
 * @throws {OutOfMemoryError} when the device has no room
 */
export async function joinRows(gpu: Gpu, parts: readonly LayerMatrix[]): Promise<LayerMatrix | undefined> {
  const [first] = parts;
  if (!parts.every((part) => areOneFormat(part, first))) return undefined;
  const planes = PLANES[first.kind].map((name) => ({ name, parts: parts.map((part) => planeOf(part, name)) }));
  const sizeOf = (plane: typeof planes[number]) => plane.parts.reduce((sum, { size }) => sum + size, 0);
  if (planes.some((plane) => sizeOf(plane) > gpu.device.limits.maxStorageBufferBindingSize)) return undefined;
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  return await allOrNone(gpu, async (scope) => {
    const joined: Record<string, unknown> = {};
    for (const plane of planes) {
      const buffer = await scope.storage(plane.name, sizeOf(plane));
      let end = 0;
      for (const { buffer: from, offset, size } of plane.parts) {
        gpu.copy(from, offset, buffer, end, size);
        end += size;
      }
      joined[plane.name] = whole(buffer);
    }
    return { ...first, rows, slabs: [{ ...first.slabs[0], rows, ...joined }] } as LayerMatrix;
  });
}

function areOneFormat(a: LayerMatrix, b: LayerMatrix): boolean {
  if (a.kind !== b.kind || a.channels !== b.channels || a.slabs.length !== 1 || a.rows % TILE_ROWS !== 0) return false;
  if (a.kind === "f16" || b.kind === "f16") return true;
  return a.refineEvery === b.refineEvery && a.slabs[0].outlierCount === 0;
}
