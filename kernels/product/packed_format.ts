// Packed weights as a format of the engine.
import { TILE_ROWS } from "../../quant/format.ts";
import { concatenateRows } from "../../quant/concatenate.ts";
import { type PackedMatrix, uploadPackedMatrix } from "../matrix/packed_matrix.ts";
import { fewPartialsBytes, fusedFew } from "./few/fused_few.ts";
import { fusedGemm } from "./fused_gemm.ts";
import { fusedGemv, takesGemvPairs } from "./fused_gemv.ts";
import { fusedSeveral, severalPartialsBytes, takesSeveralPairs } from "./few/fused_several.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import type { Epilogue, Prologue } from "./prologue_epilogue.ts";
import { hasParts, partsBytes, takesHalves } from "./tiled_product.ts";
import { type FewScratch, type HostMatrix, plainOutput, type WeightFormat } from "./weight_format.ts";

/**
 * Most tokens that decode weights once for all but walk the rows as a single one does, by the times in
 * docs/kernel_notes.md ("A step of several sequences").
 */
const SEVERAL_TOKENS = 4;

/** Most tokens of the kernel for few, by the same times: it decodes weights anew for each 16. */
const FEW_TOKENS = 64;

/** The format of {@linkcode PackedMatrix}. */
export const packedFormat: WeightFormat<HostMatrix & { readonly kind: "packed" }, PackedMatrix> = {
  canJoin: ({ tensor: a }, { tensor: b }) => a.refineEvery === b.refineEvery && a.rows % TILE_ROWS === 0,
  upload(gpu, parts) {
    const [{ tensor }] = parts;
    return uploadPackedMatrix(gpu, parts.length === 1 ? tensor : concatenateRows(parts.map(({ tensor }) => tensor)));
  },
  multiplyOne: (gpu, matrix, input, output, _scratch, activationBits) =>
    fusedGemv(gpu, matrix, input, output, { activationBits }),
  partialsBytes(gpu, matrix, tokens) {
    if (tokens <= SEVERAL_TOKENS) return severalPartialsBytes(gpu, matrix, tokens);
    if (gpu.profile.matrixUnits) return partsBytes(gpu, matrix, tokens);
    return tokens <= FEW_TOKENS ? fewPartialsBytes(gpu, matrix, tokens) : 0;
  },
  multiplyFew(gpu, matrix, product) {
    const { maxTokens } = product.range;
    if (maxTokens <= SEVERAL_TOKENS) {
      return multiplyFused(gpu, matrix, { kind: "vector", x: product.x }, plainOutput(product), product);
    }
    const isFew = maxTokens <= FEW_TOKENS && !gpu.profile.matrixUnits;
    return isFew ? fusedFew(gpu, matrix, product) : fusedGemm(gpu, matrix, product);
  },
  takesPairs(gpu, matrix, tokens) {
    return tokens === 1 ? takesGemvPairs(gpu, matrix) : takesSeveralPairs(gpu, matrix, tokens);
  },
  addsParts(gpu, matrix, tokens) {
    if (tokens <= SEVERAL_TOKENS) return false;
    return gpu.profile.matrixUnits ? hasParts(gpu, matrix, tokens) : tokens <= FEW_TOKENS;
  },
  takesHalves: (gpu, matrix, tokens) => tokens > SEVERAL_TOKENS && takesHalves(gpu, matrix, tokens),
  fused: { mostTokens: SEVERAL_TOKENS, multiply: multiplyFused },
  multiplyMany: fusedGemm,
};

async function multiplyFused(
  gpu: Gpu,
  matrix: PackedMatrix,
  input: Prologue,
  output: Epilogue,
  scratch: FewScratch,
): Promise<Dispatch[]> {
  const { range, activationBits = 16 } = scratch;
  return await fusedSeveral(gpu, matrix, input, output, scratch) ??
    await fusedGemv(gpu, matrix, input, output, { tokens: range.maxTokens, activationBits });
}
