// Weights in f16 as a format of the engine.
import {
  CHUNK_CHANNELS,
  createF16Matrix,
  type F16Matrix,
  type HalfMatrix,
  writeF16Rows,
} from "../matrix/f16_matrix.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { reduceSplitsToF16 } from "./split_reduce.ts";
import { f16Gemm } from "./f16_gemm.ts";
import { f16Gemv, f16Several } from "./f16_gemv.ts";
import { hasParts, partsBytes, takesHalves } from "./tiled_product.ts";
import { plainOutput, type WeightFormat } from "./weight_format.ts";

/** Most tokens multiplied by fours or eights with each load of weights: beside matrix units, and without them. */
const SEVERAL_TOKENS = { besideUnits: 3, withoutUnits: 16 };

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
    isSeveral(gpu, matrix, tokens) || !gpu.profile.matrixUnits ? 0 : partsBytes(gpu, matrix, tokens),
  multiplyFew(gpu, matrix, product) {
    const { maxTokens } = product.range;
    if (!isSeveral(gpu, matrix, maxTokens)) return f16Gemm(gpu, matrix, product);
    return f16Several(gpu, matrix, product.x, plainOutput(product), maxTokens);
  },
  takesPairs: () => true,
  addsParts: (gpu, matrix, tokens) => !isSeveral(gpu, matrix, tokens) && hasParts(gpu, matrix, tokens),
  takesHalves: (gpu, matrix, tokens) => !isSeveral(gpu, matrix, tokens) && takesHalves(gpu, matrix, tokens),
  multiplyMany: f16Gemm,
};

/** Whether up to so many tokens are multiplied by fours or eights with each load of weights. */
function isSeveral({ profile }: Gpu, { channels }: F16Matrix, tokens: number): boolean {
  const { besideUnits, withoutUnits } = SEVERAL_TOKENS;
  return tokens <= (profile.matrixUnits ? besideUnits : withoutUnits) && channels % CHUNK_CHANNELS === 0;
}
