// Linear layers, whatever the format of their weights.
import type { BufferScope } from "../gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { ACTIVATION_UNIT } from "../matrix/elementwise.ts";
import { f16Format } from "./f16_format.ts";
import type { Epilogue, Prologue } from "./prologue_epilogue.ts";
import type { ActivationBits } from "./pack_activations.ts";
import { packedFormat } from "./packed_format.ts";
import type { TokenRange } from "../tokens/token_range.ts";
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

/**
 * Dispatches of a product with one token.
 *
 * @param activationBits of what packed weights are multiplied with
 * @throws {TypeError} when channels of an f16 matrix are not a multiple of 8
 */
export function gemv(
  gpu: Gpu,
  matrix: WeightMatrix,
  input: Prologue,
  output: Epilogue,
  scratch: GPUBuffer,
  activationBits: ActivationBits = 16,
): Promise<Dispatch[]> {
  return FORMATS[matrix.kind].multiplyOne(gpu, matrix, input, output, scratch, activationBits);
}

/** Dispatches of a product with some tokens, with what comes before and after it. */
export type MultiplyFused = (matrix: WeightMatrix, input: Prologue, output: Epilogue) => Promise<Dispatch[]>;

/** Whether silu(gate) up of a matrix with the rows of both is made in one dispatch, of up to so many tokens. */
export function takesPairs(gpu: Gpu, matrix: WeightMatrix, tokens: number): boolean {
  return FORMATS[matrix.kind].takesPairs(gpu, matrix, tokens);
}

/**
 * Makes what multiplies some matrices with the few tokens of a range, with what comes before and after on the way;
 * nothing where that is slower, or a format has no kernel for it.
 *
 * @throws {OutOfMemoryError} when the device has no room for partial sums
 */
export async function createMultiplyFused(
  gpu: Gpu,
  scope: BufferScope,
  matrices: readonly WeightMatrix[],
  range: TokenRange,
  activationBits?: ActivationBits,
): Promise<MultiplyFused | undefined> {
  const { maxTokens } = range;
  if (matrices.some(({ kind }) => maxTokens > (FORMATS[kind].fused?.mostTokens ?? 0))) return undefined;
  const scratch = { range, partials: await createPartials(gpu, scope, matrices, maxTokens), activationBits };
  return (matrix, input, output) => FORMATS[matrix.kind].fused!.multiply(gpu, matrix, input, output, scratch);
}

/** Products with the tokens of a range: {@linkcode gemm}, or what is faster with a device or for few tokens. */
export interface MultiplyRange {
  /** Dispatches of a product. */
  (gpu: Gpu, matrix: WeightMatrix, product: RangeProduct): Promise<Dispatch[]>;
  /** The unit in which inputs may come, in f16, each as its product says; default: all are f32. */
  readonly inputUnit?: number | undefined;
  /** Whether a product may be a pair or normed, see {@linkcode RangeProduct}; default: none. */
  readonly addsParts?: (matrix: WeightMatrix) => boolean;
}

/**
 * Makes what multiplies some matrices with few tokens, in place of {@linkcode gemm}; what lies past a range's tokens, up
 * to the most it may have, is overwritten.
 *
 * @param tokens the most that a range may have
 * @throws {OutOfMemoryError} when the device has no room for partial sums
 */
export async function createMultiplyFew(
  gpu: Gpu,
  scope: BufferScope,
  matrices: readonly WeightMatrix[],
  tokens: number,
): Promise<MultiplyRange> {
  const partials = await createPartials(gpu, scope, matrices, tokens);
  const takesHalves = matrices.every((matrix) => FORMATS[matrix.kind].takesHalves(gpu, matrix, tokens));
  const inputUnit = takesHalves ? ACTIVATION_UNIT : undefined;
  const widest = Math.max(...matrices.map(({ channels }) => channels));
  const halves = takesHalves ? undefined : await createHalves(gpu, scope, widest, tokens);
  const multiply: MultiplyRange = (gpu, matrix, product) =>
    FORMATS[matrix.kind].multiplyFew(gpu, matrix, { ...product, partials, halves });
  return Object.assign(multiply, {
    inputUnit,
    addsParts: (matrix: WeightMatrix) =>
      matrix.slabs.length === 1 && FORMATS[matrix.kind].addsParts(gpu, matrix, tokens),
  });
}

async function createPartials(gpu: Gpu, scope: BufferScope, matrices: readonly WeightMatrix[], tokens: number) {
  const bytes = matrices.map((matrix) => FORMATS[matrix.kind].partialsBytes(gpu, matrix, tokens));
  return await scope.storage("partial sums", Math.max(4, ...bytes));
}

/** Room for inputs of so many channels in f16, where matrix units multiply. */
export async function createHalves(
  gpu: Gpu,
  scope: BufferScope,
  channels: number,
  tokens: number,
): Promise<GPUBuffer | undefined> {
  return gpu.profile.matrixUnits ? await scope.storage("inputs in f16", 2 * tokens * channels) : undefined;
}

/** {@linkcode gemm}, or what matrix units do in its place, see {@linkcode createMultiplyFew}. */
export async function createMultiplyMany(
  gpu: Gpu,
  scope: BufferScope,
  matrices: readonly WeightMatrix[],
  tokens: number,
): Promise<MultiplyRange> {
  return gpu.profile.matrixUnits ? await createMultiplyFew(gpu, scope, matrices, tokens) : gemm;
}

/** Dispatches of a product with many tokens. @throws {RangeError} when channels are not a multiple of 4 */
export function gemm(gpu: Gpu, matrix: WeightMatrix, product: RangeProduct): Promise<Dispatch[]> {
  return FORMATS[matrix.kind].multiplyMany(gpu, matrix, product);
}
