// What the engine asks of a format of weights. packed_format.ts and f16_format.ts are the formats, linear.ts lists
// them.
import type { PackedTensor } from "../../quant/packed_tensor.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import type { F16Matrix, HalfMatrix } from "../matrix/f16_matrix.ts";
import type { PackedMatrix } from "../matrix/packed_matrix.ts";
import type { TokenRange } from "../tokens/token_range.ts";
import type { GemmTile } from "./gemm_tile.ts";
import type { ActivationBits } from "./pack_activations.ts";
import type { Epilogue, Prologue } from "./prologue_epilogue.ts";

/** A weight matrix in device memory, told apart by its `kind`. */
export type WeightMatrix = PackedMatrix | F16Matrix;

/** A weight matrix in host memory, on its way to the device. */
export type HostMatrix = HalfMatrix | {
  readonly kind: "packed";
  readonly tensor: PackedTensor;
};

/** A product with the tokens of a range. */
export interface RangeProduct {
  /** Which tokens. */
  readonly range: TokenRange;
  /** f32 [tokens, channels]; or in f16, in units of `unit`. */
  readonly x: GPUBuffer;
  /** {@linkcode ACTIVATION_UNIT}, where {@linkcode MultiplyRange.inputUnit} says so. Default: f32. */
  readonly unit?: number | undefined;
  /** f32 [tokens, rows]. */
  readonly y: GPUBuffer | GPUBufferBinding;
  /** y += W x instead of y = W x. Default: false. */
  readonly addToY?: boolean;
  /**
   * y = silu(G x) (U x), [tokens, rows / 2] and f32 or f16 as x is, of a matrix with the rows of G and U, where
   * {@linkcode WeightFormat.addsParts} says so. Default: false.
   */
  readonly isPair?: boolean;
  /** What else becomes of y, f32 [tokens, rows], that is added to, there. Default: nothing. */
  readonly norm?: SumsNorm | undefined;
  /** Room for x in f16, 2 bytes an element: matrix units then find it rounded, once for all rows. Default: none. */
  readonly halves?: GPUBuffer | undefined;
  /**
   * Default: by rows and tokens.
   *
   * @ignore
   */
  readonly tile?: GemmTile;
}

/** A norm of what a product is added to. */
export interface SumsNorm {
  /** f32 [rows]. */
  readonly weight: GPUBuffer;
  /** Added under the root. */
  readonly epsilon: number;
  /** f32 [tokens, rows], or in f16, in units of `unit`: y / sqrt(mean(y²) + epsilon) * weight. */
  readonly normed: GPUBuffer;
  /** Default: f32. */
  readonly unit?: number | undefined;
}

/** What products with the few tokens of a range work in. */
export interface FewScratch {
  /** Which tokens. */
  readonly range: TokenRange;
  /** f32: where sums of parts of the channels lie in between; as large as {@linkcode WeightFormat.partialsBytes} says. */
  readonly partials: GPUBuffer | GPUBufferBinding;
  /** Bits of an activation that the fused kernels multiply packed weights with. Default: 16. */
  readonly activationBits?: ActivationBits | undefined;
}

/** A product with so few tokens that its channels are shared out in parts. */
export interface FewProduct extends RangeProduct, FewScratch {}

/** Weights in one format: from the host to products. What all share, freeing, copying, placing, is in matrix/slabs.ts. */
export interface WeightFormat<Host extends HostMatrix, Matrix extends WeightMatrix> {
  /** Whether the rows of `b` can follow those of `a` in one matrix. */
  canJoin(a: Host, b: Host): boolean;
  /** Uploads the rows of some matrices as one. @throws {OutOfMemoryError} when the device has no room */
  upload(gpu: Gpu, parts: readonly Host[]): Promise<Matrix>;
  /**
   * Dispatches of a product with one token.
   *
   * @param input x, or what it is made of
   * @param output where the product goes, and how
   * @param scratch f16 [channels]: where an input may be made
   * @param activationBits of what packed weights are multiplied with
   */
  multiplyOne(
    gpu: Gpu,
    matrix: Matrix,
    input: Prologue,
    output: Epilogue,
    scratch: GPUBuffer,
    activationBits: ActivationBits,
  ): Promise<Dispatch[]>;
  /**
   * Dispatches of a product with few tokens, by the kernel that is faster for as many as the range may have. What lies
   * past the range's tokens, up to the most it may have, is overwritten.
   */
  multiplyFew(gpu: Gpu, matrix: Matrix, product: FewProduct): Promise<Dispatch[]>;
  /** Bytes that a product with up to so many tokens leaves its partial sums in. */
  partialsBytes(gpu: Gpu, matrix: Matrix, tokens: number): number;
  /**
   * Whether products with one token, or with a few of {@linkcode fused}, make silu(gate) up of a matrix with the rows of
   * both in one dispatch: then a workgroup has room for whole rows.
   */
  takesPairs(gpu: Gpu, matrix: Matrix, tokens: number): boolean;
  /**
   * Whether {@linkcode multiplyFew} adds up parts of the channels with up to so many tokens: what it then makes of a
   * matrix in one slab may be silu(gate) up, or normed.
   */
  addsParts(gpu: Gpu, matrix: Matrix, tokens: number): boolean;
  /** Whether {@linkcode multiplyFew} takes inputs in f16 with up to so many tokens, see {@linkcode RangeProduct.unit}. */
  takesHalves(gpu: Gpu, matrix: Matrix, tokens: number): boolean;
  /** Products with few tokens and what comes before and after them, where the format has a kernel for it. */
  readonly fused?: FusedFormat<Matrix>;
  /** Dispatches of a product with many tokens. */
  multiplyMany(gpu: Gpu, matrix: Matrix, product: RangeProduct): Promise<Dispatch[]>;
}

/** How a format multiplies few tokens with what comes before and after. */
export interface FusedFormat<Matrix extends WeightMatrix> {
  /** Most tokens for which this is faster than products by themselves. */
  readonly mostTokens: number;
  /** Dispatches of a product. @throws {RangeError} for silu(gate) up of a matrix that {@linkcode WeightFormat.takesPairs} refuses */
  multiply(gpu: Gpu, matrix: Matrix, input: Prologue, output: Epilogue, scratch: FewScratch): Promise<Dispatch[]>;
}

/** What becomes of a product of a range. */
export function plainOutput({ y, addToY, isPair }: RangeProduct): Epilogue {
  return { kind: isPair ? "silu_product" : addToY ? "add" : "store", y: "buffer" in y ? y : { buffer: y } };
}
