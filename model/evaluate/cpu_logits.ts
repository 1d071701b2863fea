// Logits from the CPU reference, to check an engine against.
import { type Checkpoint, readModel } from "../files/checkpoint.ts";
import { forward, logitsOf } from "../llama/forward.ts";
import { createMatmulSimd } from "../llama/matmul_simd.ts";

/**
 * Logits of a model after each of some tokens, computed in f32 on the CPU. The weights are in memory for the while, four
 * bytes each; packed ones are decoded.
 *
 * ```ts
 * import { cpuLogits, openModel } from "@twobit/twobit";
 * import { assert } from "@std/assert";
 *
 * using model = await openModel("tiny");
 * const tokens = model.tokenizer.encode("Fellow citizens");
 * const [logits] = await cpuLogits(model, tokens, [tokens.length - 1]);
 * assert(logits.length === model.config.vocabulary && logits.every(Number.isFinite));
 * ```
 *
 * @param tokens a sequence from its start; nothing is put before it
 * @param positions indices of `tokens` after which logits are wanted. Default: all
 * @returns f32 [vocabulary] for each position
 * @throws {RangeError} when a token lies outside the vocabulary, a position outside the tokens, or the context is shorter
 * @throws {SyntaxError} when the model can't be read
 */
export async function cpuLogits(
  model: Checkpoint,
  tokens: ArrayLike<number>,
  positions: readonly number[] = Array.from(tokens, (_, i) => i),
): Promise<Float32Array[]> {
  const outside = positions.find((position) =>
    !(Number.isInteger(position) && position >= 0 && position < tokens.length)
  );
  if (outside !== undefined) {
    throw new RangeError(`position is ${outside}, must be one of the ${tokens.length} tokens`);
  }
  const weights = await readModel(model);
  const matmul = await createMatmulSimd();
  const { hidden } = forward(weights, [{ tokens: Uint32Array.from(tokens) }], matmul);
  const width = model.config.hidden;
  return positions.map((position) =>
    logitsOf(weights, hidden.subarray(position * width, (position + 1) * width), matmul)
  );
}
