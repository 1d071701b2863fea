// What decode_layer.wgsl needs to know of the format of its weights.
import type { Plane } from "../gpu/plane.ts";
import { LANE_SLOTS, type PackedMatrix, planeBuffers } from "../matrix/packed_matrix.ts";
import type { LayerArena, LayerMatrix } from "../matrix/share_planes.ts";

/** The density that the kernel needs not look up. */
const COMPILED_DENSITY = 8;

/** The part that multiplies weights of the format. */
export function stepsPart([{ layers: [[{ kind }]] }]: readonly LayerArena[]): "packed_steps" | "half_steps" {
  return kind === "packed" ? "packed_steps" : "half_steps";
}

/** The planes of some layers by the names that the kernel gives them, from those of their first matrix on. */
export function boundPlanes({ slabs: [slab] }: LayerMatrix): Record<string, Plane> {
  // f16 weights have no outliers, and nothing reads them.
  const planes = "weights" in slab ? { base: slab.weights, outlier_planes: slab.weights } : planeBuffers(slab);
  return Object.fromEntries(Object.entries(planes).map(([name, plane]) => [name, fromOffset(plane)]));
}

/** The range from a plane's start to the end of its buffer. */
export function fromOffset({ buffer, offset }: Plane): Plane {
  return { buffer, offset, size: buffer.size - offset };
}

/** What `layer_info` says of each matrix of some layers. */
export function placesOf(matrices: readonly (readonly LayerMatrix[])[]): number[] {
  const [first] = matrices.flat();
  return matrices.flat().flatMap((matrix) =>
    matrix.kind === "packed" && first.kind === "packed" ? packedPlaces(matrix, first) : [0, 0, 0, 0, 0, 0]
  );
}

function packedPlaces({ refineEvery, slabs: [own] }: PackedMatrix, { slabs: [first] }: PackedMatrix): number[] {
  const outlierStart = (own.outliers.offset - first.outliers.offset) / 4;
  return [
    refineEvery === "none" ? 0 : refineEvery,
    (own.refine.offset - first.refine.offset) / 8,
    own.slotStart === 0 ? 0 : (outlierStart + own.slotStart) / LANE_SLOTS,
    Math.log2(own.slots),
    outlierStart,
    own.hasBeyond ? own.outlierResiduals : 0,
  ];
}

/** Whether a matrix has another density than the one that the kernel has compiled in. */
export function hasDensities(arenas: readonly LayerArena[]): boolean {
  const matrices = arenas.flatMap(({ layers }) => layers.flat());
  return matrices.some((matrix) => matrix.kind === "packed" && matrix.refineEvery !== COMPILED_DENSITY);
}

/** Constants that follow from the format, and where matrices lie. */
export function formatConstants([arena]: readonly LayerArena[]): Record<string, number> {
  const [matrices] = arena.layers;
  if (matrices[0].kind === "f16") return { ...startsOf(arena, ["base"]), cells_in_order: 1 };
  const endsInHalf = matrices.some((matrix) => matrix.kind === "packed" && matrix.halfBlocks % 2 === 1);
  return { ...(endsInHalf && { ends_in_half: 1 }), ...startsOf(arena, ["base", "meta", "scale"]) };
}

/** Where layers lie, and the matrices of each but the first, in the vectors of 16 bytes that the kernel reads. */
function startsOf({ strides, offsets }: LayerArena, planes: readonly string[]): Record<string, number> {
  const matrices = [["o", offsets[1]], ["gate_up", offsets[2]], ["down", offsets[3]]] as const;
  return Object.fromEntries([
    ...planes.map((plane, i) => [`${plane}_stride`, strides[i] / 16]),
    ...planes.flatMap((plane, i) => matrices.map(([matrix, bytes]) => [`${plane}_${matrix}`, bytes[i] / 16])),
  ]);
}
