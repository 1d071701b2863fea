// Packed weights as a format of the engine.
import { TILE_ROWS } from "../../quant/format.ts";
import { concatenateRows } from "../../quant/concatenate.ts";
import { type PackedMatrix, uploadPackedMatrix } from "../matrix/packed_matrix.ts";
import { fewPartialsBytes, fusedFew } from "./fused_few.ts";
import { fusedFewByMatrices, fusedGemm } from "./fused_gemm.ts";
import { fusedGemv } from "./fused_gemv.ts";
import { matrixFewBytes } from "./few_parts.ts";
import { asVectors, type HostMatrix, type WeightFormat } from "./weight_format.ts";

/**
 * Most tokens for which a matrix-vector product for each is faster than one that decodes weights once for all, by the
 * times in docs/kernel_notes.md ("A step of several sequences").
 */
const VECTOR_TOKENS = 4;

/** Most tokens of the kernel for few, by the same times: it decodes weights anew for each 16. */
const FEW_TOKENS = 64;

/** The format of {@linkcode PackedMatrix}. */
export const packedFormat: WeightFormat<HostMatrix & { readonly kind: "packed" }, PackedMatrix> = {
  canJoin: ({ tensor: a }, { tensor: b }) => a.refineEvery === b.refineEvery && a.rows % TILE_ROWS === 0,
  upload(gpu, parts) {
    const [{ tensor }] = parts;
    return uploadPackedMatrix(gpu, parts.length === 1 ? tensor : concatenateRows(parts.map(({ tensor }) => tensor)));
  },
  multiplyOne: (gpu, matrix, input, output) => fusedGemv(gpu, matrix, input, output),
  partialsBytes(gpu, matrix, tokens) {
    if (tokens <= VECTOR_TOKENS || tokens > FEW_TOKENS) return 0;
    return gpu.profile.matrixUnits ? matrixFewBytes(gpu, matrix, tokens) : fewPartialsBytes(gpu, matrix, tokens);
  },
  multiplyFew(gpu, matrix, product) {
    if (product.range.maxTokens > FEW_TOKENS) return fusedGemm(gpu, matrix, product);
    if (product.range.maxTokens > VECTOR_TOKENS) {
      return gpu.profile.matrixUnits ? fusedFewByMatrices(gpu, matrix, product) : fusedFew(gpu, matrix, product);
    }
    const { input, output, options } = asVectors(product);
    return fusedGemv(gpu, matrix, input, output, options);
  },
  multiplyMany: fusedGemm,
};
