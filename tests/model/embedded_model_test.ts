import { forward, logitsOf } from "../../model/llama/forward.ts";
import { loadModel } from "../../model/load.ts";
import { createMatmulSimd } from "../../model/llama/matmul_simd.ts";
import { scoreWindow } from "../../model/evaluate/score.ts";
import { clusteredMean, mean } from "../../model/host/statistics.ts";
import { loadText } from "../../model/text/text.ts";
import { cutWindows, joinTokens } from "../../model/text/windows.ts";
import { assert, assertClose, assertEquals } from "../assert.ts";
import { readF32, readJson } from "../fixture.ts";

/** Computed by Hugging Face transformers 5.23 in f32 (tests/fixtures/make_embedded_model.py). */
interface Expected {
  /** Positions of the first window whose logits are in embedded_model_logits.f32.gz. */
  readonly positions: number[];
  /** 4 windows of 512 tokens of the text `sotu`. */
  readonly windows: number[][];
  /** Mean negative log-likelihood of each window. */
  readonly loss: number[];
  /** Most likely token at each position of the first window. */
  readonly top1: number[];
  readonly prompt: number[];
  readonly continuation: number[];
  readonly continuationText: string;
}

const expected = await readJson<Expected>("embedded_model.json");
const { model, tokenizer, sha256 } = await loadModel("tiny");
const matmul = await createMatmulSimd();
const { vocabulary, hidden: width } = model.config;

Deno.test("embedded model: the windows of sotu are those that Python cuts", async () => {
  const text = await loadText("sotu");
  const { windows } = cutWindows(text, joinTokens(text, tokenizer), tokenizer, { length: 512, count: 4 });
  assertEquals(windows.map((window) => Array.from(window)), expected.windows);
});

Deno.test("embedded model: logits agree with Hugging Face transformers to 2e-4", async () => {
  const logits = await readF32("embedded_model_logits.f32");
  const { hidden } = forward(model, [{ tokens: Uint32Array.from(expected.windows[0]) }], matmul);
  for (const [i, position] of expected.positions.entries()) {
    const row = logitsOf(model, hidden.subarray(position * width, (position + 1) * width), matmul);
    assertClose(row, logits.subarray(i * vocabulary, (i + 1) * vocabulary), 2e-4);
  }
});

Deno.test("embedded model: loss, top-1 and perplexity of four windows agree with Hugging Face transformers", () => {
  const scores = expected.windows.map((window) => scoreWindow(model, Uint32Array.from(window), matmul));
  const losses = scores.map((score) => score.negativeLogLikelihood);
  for (const [i, loss] of losses.entries()) assert(Math.abs(mean(loss) / expected.loss[i] - 1) < 1e-5, `window ${i}`);
  const perplexity = Math.exp(clusteredMean(losses).value);
  assert(Math.abs(perplexity / Math.exp(mean(expected.loss)) - 1) < 1e-4, `perplexity is ${perplexity}`);
  const hits = expected.top1.map((token, t) => token === expected.windows[0][t + 1] ? 1 : 0);
  assertEquals(Array.from(scores[0].top1), hits);
});

Deno.test("embedded model: greedy continuation through prefix caches equals Hugging Face generate", () => {
  let tokens = Uint32Array.from(expected.prompt);
  let { hidden, cache } = forward(model, [{ tokens }], matmul);
  const continuation: number[] = [];
  while (continuation.length < expected.continuation.length) {
    const logits = logitsOf(model, hidden.subarray(hidden.length - width), matmul);
    continuation.push(logits.indexOf(Math.max(...logits)));
    tokens = Uint32Array.of(continuation[continuation.length - 1]);
    ({ hidden, cache } = forward(model, [{ tokens, prefix: cache[0] }], matmul));
  }
  assertEquals(continuation, expected.continuation);
  assertEquals(tokenizer.decode(continuation), expected.continuationText);
});

Deno.test("embedded model: loadModel names it and hashes its weights", async () => {
  const bytes = await Deno.readFile(new URL("../../model/tiny/model.safetensors", import.meta.url));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  assertEquals(sha256, digest.toHex());
  assertEquals([tokenizer.vocabulary, vocabulary], [4096, 4096]);
});
