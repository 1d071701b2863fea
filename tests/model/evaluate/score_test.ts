import { loadModel } from "../../../model/load.ts";
import type { Model } from "../../../model/llama/llama.ts";
import { matmulPlain } from "../llama/matmul_plain.ts";
import { createMatmulSimd } from "../../../model/llama/matmul_simd.ts";
import { scoreChoices, scoreWindow } from "../../../model/evaluate/score.ts";
import { assertClose, assertEquals, assertThrows } from "../../assert.ts";
import { readJson } from "../../fixture.ts";

/** P[a][b] is the probability of token b after token a. */
const P = [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.9, 0.05, 0.05]];
const Q = [[0.25, 0.5, 0.25], [0.1, 0.2, 0.7], [0.8, 0.1, 0.1]];

/**
 * A model without layers that predicts the next token from the last one alone. Embeddings are sqrt(3) times unit
 * vectors, which the final norm (weights 1 / sqrt(3)) leaves as unit vectors; column a of the head holds log P[a].
 */
function bigramModel(probabilities: readonly (readonly number[])[], shift = 0): Model {
  const size = probabilities.length;
  const embedding = new Float32Array(size * size);
  const head = new Float32Array(size * size);
  for (let a = 0; a < size; a++) {
    embedding[a * size + a] = Math.sqrt(size);
    for (let b = 0; b < size; b++) head[b * size + a] = Math.log(probabilities[a][b]) + shift;
  }
  const config: Model["config"] = {
    architecture: "LlamaForCausalLM",
    vocabulary: size,
    hidden: size,
    intermediate: 1,
    layers: 0,
    heads: 1,
    keyValueHeads: 1,
    headSize: 2,
    context: 1000,
    normEpsilon: 0,
    rope: { theta: 10000 },
    tiedHead: false,
    attentionBias: false,
    outputBias: false,
    queryKeyNorm: false,
  };
  return { config, embedding, layers: [], finalNorm: new Float32Array(size).fill(1 / Math.sqrt(size)), head };
}

Deno.test("scoreWindow: negative log-likelihood and top-1 of a model worked by hand", () => {
  const tokens = Uint32Array.of(0, 1, 2, 0, 0, 2, 1);
  for (const shift of [0, 30, -30]) {
    const { negativeLogLikelihood, top1, divergence } = scoreWindow(bigramModel(P, shift), tokens, matmulPlain);
    assertClose(negativeLogLikelihood, [0.25, 0.7, 0.9, 0.5, 0.25, 0.05].map((p) => -Math.log(p)), 1e-5);
    assertEquals(Array.from(top1), [0, 1, 1, 1, 0, 0]);
    assertEquals(divergence, undefined);
  }
});

Deno.test("scoreWindow, scoreChoices: predictions that are no numbers are refused", () => {
  for (const bad of [NaN, Infinity]) {
    const model = bigramModel(P);
    model.head[1] = bad; // of token 0 after token 1
    const tokens = Uint32Array.of(0, 2, 1, 2);
    const message = "logits at position 0 are not numbers"; // 0 times what is no number
    assertThrows(() => scoreWindow(model, tokens, matmulPlain), RangeError, message);
    const items = [{ context: Uint32Array.of(1), continuations: [Uint32Array.of(2)] }];
    assertThrows(() => scoreChoices(model, items, matmulPlain), RangeError, "logits of continuation token 0");
  }
});

Deno.test("scoreWindow: KL(reference || model) worked by hand", () => {
  const tokens = Uint32Array.of(0, 1, 2, 2);
  const reference = new Float32Array(3 * 3);
  scoreWindow(bigramModel(P), tokens, matmulPlain, { keep: reference });
  assertClose(reference, [...P[0], ...P[1], ...P[2]].map(Math.log), 1e-6);
  const { divergence } = scoreWindow(bigramModel(Q), tokens, matmulPlain, { reference });
  // After 0: 0.5 ln 2 + 0.25 ln 0.5; after 1: 0; after 2: 0.9 ln(0.9 / 0.8) + 0.1 ln 0.5.
  assertClose(divergence!, [0.25 * Math.LN2, 0, 0.9 * Math.log(1.125) - 0.1 * Math.LN2], 1e-6);
});

Deno.test("scoreWindow: windows longer than one batch of logits (126 rows) are scored in order", () => {
  const tokens = Uint32Array.from({ length: 400 }, (_, i) => (i * i) % 3 === 1 ? 2 : i % 2);
  const keep = new Float32Array(399 * 3);
  const { negativeLogLikelihood } = scoreWindow(bigramModel(P), tokens, matmulPlain, { keep });
  const pairs = Array.from({ length: 399 }, (_, i) => [tokens[i], tokens[i + 1]]);
  assertClose(negativeLogLikelihood, pairs.map(([a, b]) => -Math.log(P[a][b])), 1e-5);
  assertClose(keep, pairs.flatMap(([a]) => P[a]).map(Math.log), 1e-5);
});

Deno.test("scoreChoices: log-likelihoods worked by hand", () => {
  const items = [
    { context: Uint32Array.of(0, 1), continuations: [Uint32Array.of(2, 0), Uint32Array.of(0, 0, 0)] },
    { context: Uint32Array.of(2), continuations: [Uint32Array.of(1), Uint32Array.of(0)] },
  ];
  const scores = scoreChoices(bigramModel(P), items, matmulPlain);
  const wanted = [[Math.log(0.7 * 0.9), Math.log(0.1 * 0.5 * 0.5)], [Math.log(0.05), Math.log(0.9)]];
  assertEquals(scores.map(({ length }) => length), [2, 2]);
  scores.forEach((row, i) => assertClose(row, wanted[i], 1e-5));
});

Deno.test("scoreChoices: log-likelihoods on the embedded model agree with Hugging Face transformers", async () => {
  // Computed by transformers 5.23, one whole sequence a continuation (tests/fixtures/make_embedded_model.py).
  const { choices } = await readJson<
    { choices: { context: number[]; continuations: number[][]; scores: number[] }[] }
  >("embedded_model.json");
  const { model } = await loadModel("tiny");
  const items = choices.map(({ context, continuations }) => ({
    context: Uint32Array.from(context),
    continuations: continuations.map((tokens) => Uint32Array.from(tokens)),
  }));
  const scores = scoreChoices(model, items, await createMatmulSimd());
  // A sum over 16 tokens, each within 1e-4.
  scores.forEach((row, i) => assertClose(row, choices[i].scores, 1.6e-3));
});
