import { destroyF16Matrix, uploadF16Matrix } from "../../kernels/f16_matrix.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import {
  advance,
  argmax,
  CANDIDATES,
  NOT_A_NUMBER_TOKEN,
  packSampling,
  sample,
  type Sampling,
  samplingProbabilities,
} from "../../kernels/pick_token.ts";
import { createRandom } from "../../quant/random.ts";
import { assert, assertEquals } from "../assert.ts";
import { testGpu } from "./helpers.ts";
import { test } from "../test.ts";

const HIDDEN = 8;

function randomLogits(length: number, seed: number) {
  const random = createRandom(seed);
  return Float32Array.from({ length }, () => 3 * random.normal());
}

/** Runs `steps` times: choose from the same logits, advance. Returns tokens, position and the last hidden state. */
async function choose(gpu: Gpu, logits: Float32Array<ArrayBuffer>, steps: number, sampling?: Sampling) {
  const length = logits.length;
  const embedding = Float16Array.from({ length: length * HIDDEN }, (_, i) => i % 1000);
  const matrix = await uploadF16Matrix(gpu, embedding, length, HIDDEN, 64 * 1024);
  const buffers = {
    logits: await gpu.uploadStorage("logits", logits),
    settings: await gpu.uploadStorage(
      "settings",
      packSampling(sampling ?? { temperature: 1, topP: 1, topK: 0, seed: 0 }),
    ),
    candidates: await gpu.uploadStorage("candidates", new Uint32Array(2 * CANDIDATES).fill(0xdeadbeef)),
    embedding: matrix,
    sequence: await gpu.uploadStorage("sequence", Uint32Array.of(4)),
    tokens: await gpu.uploadStorage("tokens", new Uint32Array(5 + steps).fill(7)),
    hidden: await gpu.createStorage("hidden", HIDDEN * 4),
  };
  const pick = sampling
    ? await sample(gpu, length, buffers)
    : await argmax(gpu, length, buffers.logits, buffers.candidates);
  const next = await advance(gpu, sampling ? 1 : CANDIDATES, buffers);
  for (let i = 0; i < steps; i++) gpu.submit([pick, ...next]);
  const tokens = new Uint32Array(await gpu.read(buffers.tokens));
  const [position] = new Uint32Array(await gpu.read(buffers.sequence));
  const hidden = await gpu.readF32(buffers.hidden, HIDDEN);
  const { embedding: _, ...owned } = buffers;
  for (const buffer of Object.values(owned)) gpu.destroyBuffer(buffer);
  destroyF16Matrix(gpu, matrix);
  assertEquals(tokens.subarray(0, 5), new Uint32Array(5).fill(7));
  return { tokens: tokens.subarray(5, 5 + steps), position, hidden, embedding };
}

test("argmax and advance: the lowest of the most likely tokens, its embedding, the next position", async () => {
  const gpu = await testGpu();
  for (const [length, best] of [[3, 2], [1000, 17], [40_003, 40_002], [70_000, 0]]) {
    const logits = randomLogits(length, length);
    logits[best] = 50;
    if (best + 300 < length) logits[best + 300] = 50;
    const { tokens, position, hidden, embedding } = await choose(gpu, logits, 2);
    assertEquals(tokens, Uint32Array.of(best, best));
    assertEquals(position, 6);
    assertEquals(hidden, Float32Array.from(embedding.subarray(best * HIDDEN, (best + 1) * HIDDEN)));
  }
});

test("argmax of all equal or very low logits is the first token", async () => {
  const gpu = await testGpu();
  assertEquals((await choose(gpu, new Float32Array(700), 1)).tokens[0], 0);
  assertEquals((await choose(gpu, new Float32Array(700).fill(-3e38), 1)).tokens[0], 0);
});

test("a logit that is not a number can't pass unseen", async () => {
  const gpu = await testGpu();
  const logits = randomLogits(5000, 3);
  logits[4321] = NaN;
  assertEquals((await choose(gpu, logits, 1)).tokens[0], NOT_A_NUMBER_TOKEN);
  const sampling = { temperature: 1, topP: 0.9, topK: 10, seed: 1 };
  assertEquals((await choose(gpu, logits, 1, sampling)).tokens[0], NOT_A_NUMBER_TOKEN);
});

const SAMPLINGS: readonly Omit<Sampling, "seed">[] = [
  { temperature: 1, topP: 1, topK: 0 },
  { temperature: 0.3, topP: 1, topK: 0 },
  { temperature: 2, topP: 1, topK: 5 },
  { temperature: 1, topP: 0.6, topK: 0 },
  { temperature: 1.5, topP: 0.8, topK: 12 },
  { temperature: 1, topP: 0, topK: 0 },
  { temperature: 1, topP: 1, topK: 1 },
];

test("sample draws each token as often as its probability says", async () => {
  const gpu = await testGpu();
  const steps = 400;
  for (const [index, settings] of SAMPLINGS.entries()) {
    const logits = randomLogits(40, 10 + index);
    const sampling = { ...settings, seed: 5 };
    const probabilities = samplingProbabilities(logits, sampling);
    const { tokens } = await choose(gpu, logits, steps, sampling);
    const counts = new Float64Array(logits.length);
    for (const token of tokens) counts[token]++;
    for (const [token, probability] of probabilities.entries()) {
      // Five standard deviations of a binomial count, and nothing where the probability is 0.
      const slack = 5 * Math.sqrt(steps * probability * (1 - probability));
      const isNear = Math.abs(counts[token] - steps * probability) <= slack;
      assert(isNear, `${JSON.stringify(settings)}: token ${token} ${counts[token]} times, p = ${probability}`);
    }
  }
});

test("sample: the same seed draws the same tokens, another one others", async () => {
  const gpu = await testGpu();
  const logits = randomLogits(33_000, 1);
  const sampling = { temperature: 1, topP: 0.95, topK: 0, seed: 9 };
  const first = (await choose(gpu, logits, 12, sampling)).tokens;
  assertEquals((await choose(gpu, logits, 12, sampling)).tokens, first);
  const other = (await choose(gpu, logits, 12, { ...sampling, seed: 10 })).tokens;
  assert(other.some((token, i) => token !== first[i]), "another seed draws other tokens");
  const probabilities = samplingProbabilities(logits, sampling);
  for (const token of [...first, ...other]) assert(probabilities[token] > 0, `token ${token} may be drawn`);
});
