// Weights in f16 as a format of the engine.
import {
  CHUNK_CHANNELS,
  createF16Matrix,
  type F16Matrix,
  type HalfMatrix,
  writeF16Rows,
} from "../matrix/f16_matrix.ts";
import { reduceSplitsToF16 } from "./split_reduce.ts";
import { f16Gemm } from "./f16_gemm.ts";
import { f16Gemv } from "./f16_gemv.ts";
import { partsBytes } from "./tiled_product.ts";
import { asVectors, type WeightFormat } from "./weight_format.ts";

/** As in packed_format.ts; here the weights of a token's own product are as many bytes as those of all. */
const VECTOR_TOKENS = 3;

/** The format of {@linkcode F16Matrix}; products with one token need channels in eights, with more in fours. */
export const f16Format: WeightFormat<HalfMatrix, F16Matrix> = {
  canJoin: (a, b) => a.channels === b.channels,
  async upload(gpu, parts) {
    await gpu.waitForWrites();
    const rows = parts.reduce((sum, part) => sum + part.rows, 0);
    const matrix = await createF16Matrix(gpu, rows, parts[0].channels);
    let firstRow = 0;
    for (const part of parts) {
      writeF16Rows(gpu, matrix, firstRow, part.weights);
      firstRow += part.rows;
    }
    return matrix;
  },
  async multiplyOne(gpu, matrix, input, output, scratch) {
    if (input.kind !== "attention") return await f16Gemv(gpu, matrix, input, output);
    // Once, as every workgroup would have to do it again.
    const combine = await reduceSplitsToF16(gpu, matrix.channels, input, scratch);
    return [combine, ...await f16Gemv(gpu, matrix, { kind: "half", x: scratch }, output)];
  },
  partialsBytes: (gpu, matrix, tokens) =>
    isVectors(matrix, tokens) || !gpu.profile.matrixUnits ? 0 : partsBytes(gpu, matrix, tokens),
  multiplyFew(gpu, matrix, product) {
    if (!isVectors(matrix, product.range.maxTokens)) return f16Gemm(gpu, matrix, product);
    const { input, output, options } = asVectors(product);
    return f16Gemv(gpu, matrix, input, output, options);
  },
  multiplyMany: f16Gemm,
};

/** Whether up to so many tokens are multiplied one by one. */
function isVectors({ channels }: F16Matrix, tokens: number): boolean {
  return tokens <= VECTOR_TOKENS && channels % CHUNK_CHANNELS === 0;
}
