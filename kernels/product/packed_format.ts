// Packed weights as a format of the engine.
import { TILE_ROWS } from "../../quant/format.ts";
import { concatenateRows } from "../../quant/concatenate.ts";
import { type PackedMatrix, uploadPackedMatrix } from "../matrix/packed_matrix.ts";
import { fewPartialsBytes, fusedFew } from "./fused_few.ts";
import { fusedGemm } from "./fused_gemm.ts";
import { fusedGemv } from "./fused_gemv.ts";
import { partsBytes } from "./tiled_product.ts";
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
    if (tokens <= VECTOR_TOKENS) return 0;
    if (gpu.profile.matrixUnits) return partsBytes(gpu, matrix, tokens);
    return tokens <= FEW_TOKENS ? fewPartialsBytes(gpu, matrix, tokens) : 0;
  },
  multiplyFew(gpu, matrix, product) {
    const { maxTokens } = product.range;
    if (maxTokens > FEW_TOKENS || (gpu.profile.matrixUnits && maxTokens > VECTOR_TOKENS)) {
      return fusedGemm(gpu, matrix, product);
    }
    if (maxTokens > VECTOR_TOKENS) return fusedFew(gpu, matrix, product);
    const { input, output, options } = asVectors(product);
    return fusedGemv(gpu, matrix, input, output, options);
  },
  multiplyMany: fusedGemm,
};
