// Launcher of the product that quantization is made of.
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { ACTIVATION_UNIT } from "../matrix/elementwise.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

/** Rows and columns of a workgroup, and of one with matrix units. */
const TILE_M = 64;
const TILE_N = 128;
const MATRICES = 128;

/** Rows of f32 in a buffer. */
export interface Rows {
  readonly buffer: GPUBuffer;
  /** Elements from one row to the next, a multiple of 4. */
  readonly stride: number;
}

/** Which part of c is computed: all, or its upper or lower triangle with the diagonal; the rest stays as it is. */
export type Triangle = "all" | "upper" | "lower";

/** One update: c[m, n] += factor * sum over k of a[k, m] b[k, n]. */
export interface OuterUpdate {
  readonly range: UpdateRange;
  /** Uniform with {@linkcode updateWords} of that range. */
  readonly words: GPUBufferBinding;
  readonly a: Rows;
  readonly b: Rows;
  /** Result; neither a nor b. */
  readonly c: Rows;
  readonly factor?: number;
  /** Default: all. */
  readonly triangle?: Triangle;
}

/** The same by matrix units, which the device must have. */
export interface MatrixUpdate extends Pick<OuterUpdate, "words" | "c" | "triangle"> {
  /** Of which k and the first elements of a and b are multiples of 32. */
  readonly range: UpdateRange;
  /** f16 [m, k] in units, see turn_halves.wgsl. */
  readonly a: GPUBuffer;
  /** f16 [n, k]. */
  readonly b: GPUBuffer;
}

/** What one update reads and writes: counts and first elements, all multiples of 4 but k. */
export interface UpdateRange {
  /** Rows of c. */
  readonly m: number;
  /** Columns of c. */
  readonly n: number;
  /** Outer products that are summed. */
  readonly k: number;
  /** First element of a; default: 0. */
  readonly aFirst?: number;
  /** First element of b; default: 0. */
  readonly bFirst?: number;
  /** First element of c; default: 0. */
  readonly cFirst?: number;
  /** Row of the square matrix of which c is a part, where a triangle is wanted; default: 0. */
  readonly cRow?: number;
}

/** Words of a range as the kernel reads them. */
export function updateWords(
  { m, n, k, aFirst = 0, bFirst = 0, cFirst = 0, cRow = 0 }: UpdateRange,
): readonly number[] {
  if (m % 4 !== 0 || n % 4 !== 0) throw new RangeError(`update is ${m} x ${n}, must be multiples of 4`);
  return [m, n, k, aFirst, bFirst, cFirst, cRow];
}

const TRIANGLES: readonly Triangle[] = ["all", "upper", "lower"];

export async function outerUpdate(
  gpu: Gpu,
  { range: { m, n }, words, a, b, c, factor = 1, triangle = "all" }: OuterUpdate,
): Promise<Dispatch> {
  return await gpu.makeDispatch(joinShader(wgsl, "outer_update"), {
    constants: {
      a_stride: a.stride,
      b_stride: b.stride,
      c_stride: c.stride,
      factor,
      triangle: TRIANGLES.indexOf(triangle),
    },
    buffers: { update: words, a: a.buffer, b: b.buffer, c: c.buffer },
    workgroups: [Math.ceil(n / TILE_N), Math.ceil(m / TILE_M), 1],
  });
}

export async function outerMatrices(
  gpu: Gpu,
  { range: { m, n }, words, a, b, c, triangle = "all" }: MatrixUpdate,
): Promise<Dispatch> {
  return await gpu.makeDispatch(joinShader(wgsl, "outer_matrices"), {
    constants: { c_stride: c.stride, activation_unit: ACTIVATION_UNIT, triangle: TRIANGLES.indexOf(triangle) },
    buffers: { update: words, a, b, c: c.buffer },
    workgroups: [Math.ceil(m / MATRICES), Math.ceil(n / MATRICES), 1],
  });
}
