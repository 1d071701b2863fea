/**
 * Linear layers, whatever the format of their weights.
 *
 * @module
 */
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { f16Format } from "./f16_format.ts";
import type { Epilogue, Prologue } from "./prologue_epilogue.ts";
import { packedFormat } from "./packed_format.ts";
import type { HostMatrix, RangeProduct, WeightFormat, WeightMatrix } from "./weight_format.ts";

/** All formats, by the `kind` of their matrices. */
const FORMATS: Readonly<Record<WeightMatrix["kind"], WeightFormat<HostMatrix, WeightMatrix>>> = {
  packed: packedFormat,
  f16: f16Format,
};

/** Whether the rows of `b` can follow those of `a` in one matrix. */
export function canJoin(a: HostMatrix, b: HostMatrix): boolean {
  return a.kind === b.kind && FORMATS[a.kind].canJoin(a, b);
}

/** Uploads the rows of some matrices that can be joined as one. @throws {OutOfMemoryError} when the device has no room */
export function uploadMatrix(gpu: Gpu, parts: readonly HostMatrix[]): Promise<WeightMatrix> {
  return FORMATS[parts[0].kind].upload(gpu, parts);
}

/** Dispatches of a product with one token. @throws {TypeError} when channels of an f16 matrix are not a multiple of 8 */
export function gemv(
  gpu: Gpu,
  matrix: WeightMatrix,
  input: Prologue,
  output: Epilogue,
  scratch: GPUBuffer,
): Promise<Dispatch[]> {
  return FORMATS[matrix.kind].multiplyOne(gpu, matrix, input, output, scratch);
}

/** Dispatches of a product with few tokens; what lies past the range's, up to the most it may have, is overwritten. */
export function multiplyFew(gpu: Gpu, matrix: WeightMatrix, product: RangeProduct): Promise<Dispatch[]> {
  return FORMATS[matrix.kind].multiplyFew(gpu, matrix, product);
}

/** Dispatches of a product with many tokens. @throws {RangeError} when channels are not a multiple of 4 */
export function gemm(gpu: Gpu, matrix: WeightMatrix, product: RangeProduct): Promise<Dispatch[]> {
  return FORMATS[matrix.kind].multiplyMany(gpu, matrix, product);
}
