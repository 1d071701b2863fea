import { uploadF16Matrix } from "../../../kernels/matrix/f16_matrix.ts";
import type { Gpu } from "../../../kernels/gpu/gpu.ts";
import {
  advance,
  argmax,
  CANDIDATES,
  NOT_A_NUMBER_TOKEN,
  packSampling,
  sample,
  type Sampling,
  selectionBytes,
} from "../../../kernels/tokens/sampler.ts";
import { drawOnCpu, samplingProbabilities } from "./sampler_reference.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertEquals, assertThrows } from "../../assert.ts";
import { testGpu } from "../helpers.ts";
import { test } from "../../test.ts";
import { destroyMatrices } from "../../../kernels/matrix/slabs.ts";

const HIDDEN = 8;
const SLAB_BYTES = 64 * 1024;

function randomLogits(length: number, seed: number) {
  const random = createRandom(seed);
  return Float32Array.from({ length }, () => 3 * random.normal());
}

/** Runs `steps` times: choose from the same logits, advance. Returns tokens, position and the last hidden state. */
async function choose(
  gpu: Gpu,
  logits: Float32Array<ArrayBuffer>,
  steps: number,
  sampling?: Sampling,
  slabBytes = SLAB_BYTES,
) {
  const length = logits.length;
  const embedding = Float16Array.from({ length: length * HIDDEN }, (_, i) => i % 1000);
  const matrix = await uploadF16Matrix(gpu, embedding, length, HIDDEN, slabBytes);
  const buffers = {
    logits: await gpu.uploadStorage("logits", logits),
    settings: await gpu.uploadStorage(
      "settings",
      packSampling(sampling ?? { temperature: 1, topP: 1, topK: 0, seed: 0 }),
    ),
    candidates: await gpu.uploadStorage("candidates", new Uint32Array(2 * CANDIDATES).fill(0xdeadbeef)),
    selection: await gpu.createStorage("selection", selectionBytes(gpu)),
    embedding: matrix,
    sequence: await gpu.uploadStorage("sequence", Uint32Array.of(4)),
    tokens: await gpu.uploadStorage("tokens", new Uint32Array(5 + steps).fill(7)),
    hidden: await gpu.createStorage("hidden", HIDDEN * 4),
  };
  const pick = sampling
    ? await sample(gpu, length, buffers)
    : [await argmax(gpu, length, buffers.logits, buffers.candidates)];
  const next = await advance(gpu, buffers);
  for (let i = 0; i < steps; i++) gpu.submit([...pick, ...next]);
  const tokens = new Uint32Array(await gpu.read(buffers.tokens));
  const [position] = new Uint32Array(await gpu.read(buffers.sequence));
  const hidden = await gpu.readF32(buffers.hidden, HIDDEN);
  const { embedding: _, ...owned } = buffers;
  for (const buffer of Object.values(owned)) gpu.destroyBuffer(buffer);
  destroyMatrices(gpu, matrix);
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

test("sample draws the tokens that its CPU reference draws", async () => {
  const gpu = await testGpu();
  for (const [index, settings] of [...SAMPLINGS, { temperature: 0.8, topP: 0.9, topK: 40 }].entries()) {
    const logits = randomLogits(index % 2 === 0 ? 33_000 : 1000, 20 + index);
    const sampling = { ...settings, seed: 2 ** 31 + index };
    const { tokens } = await choose(gpu, logits, 12, sampling);
    for (const [step, token] of tokens.entries()) {
      const expected = drawOnCpu(logits, sampling, 4 + step);
      // Scores are below 45 in f32, the device's logarithms are off by 2^-21 at most.
      assert(expected.lead > 1.0001, "no draw of this test is as near as f32's rounding");
      assertEquals(token, expected.token, `${JSON.stringify(sampling)} at position ${4 + step}`);
    }
  }
});

test("argmax, sample and advance of several sequences: each token is the one that its sequence gets alone", async () => {
  const gpu = await testGpu();
  const length = 5000;
  const logits = [5, 6, 7].map((seed) => randomLogits(length, seed));
  const samplings = [
    { temperature: 1, topP: 0.9, topK: 0, seed: 3 },
    { temperature: 2, topP: 1, topK: 40, seed: 8 },
    { temperature: 0.7, topP: 1, topK: 0, seed: 3 },
  ];
  // `choose` starts at position 4; the others' places among the tokens are not those of their logits.
  const sequence = Uint32Array.of(4, 1, 4, 0, 4, 3);
  const embedding = Float16Array.from({ length: length * HIDDEN }, (_, i) => i % 1000);
  const matrix = await uploadF16Matrix(gpu, embedding, length, HIDDEN, SLAB_BYTES);
  for (const isSampled of [false, true]) {
    const buffers = {
      logits: await gpu.uploadStorage("logits", Float32Array.from(logits.flatMap((each) => [...each]))),
      settings: await gpu.uploadStorage("settings", Uint32Array.from(samplings.flatMap((s) => [...packSampling(s)]))),
      candidates: await gpu.createStorage("candidates", 3 * 2 * CANDIDATES * 4),
      selection: await gpu.createStorage("selection", 3 * selectionBytes(gpu)),
      sequence: await gpu.uploadStorage("sequence", sequence),
      tokens: await gpu.uploadStorage("tokens", new Uint32Array(4 * 8).fill(7)),
      hidden: await gpu.createStorage("hidden", 3 * HIDDEN * 4),
    };
    const pick = isSampled
      ? await sample(gpu, length, buffers, 3)
      : [await argmax(gpu, length, buffers.logits, buffers.candidates, 3)];
    const next = await advance(gpu, { ...buffers, embedding: matrix, stride: 8 }, 3);
    for (let step = 0; step < 2; step++) gpu.submit([...pick, ...next]);
    const expected = new Uint32Array(4 * 8).fill(7);
    const hidden: number[] = [];
    for (const [i, place] of [1, 0, 3].entries()) {
      const alone = await choose(gpu, logits[i], 2, isSampled ? samplings[i] : undefined);
      expected.set(alone.tokens, place * 8 + 5);
      hidden.push(...alone.hidden);
    }
    assertEquals(new Uint32Array(await gpu.read(buffers.tokens)), expected);
    assertEquals(new Uint32Array(await gpu.read(buffers.sequence, 24)), Uint32Array.of(6, 1, 6, 0, 6, 3));
    assertEquals(await gpu.readF32(buffers.hidden, 3 * HIDDEN), Float32Array.from(hidden));
    for (const buffer of Object.values(buffers)) gpu.destroyBuffer(buffer);
  }
  destroyMatrices(gpu, matrix);
});

test("packSampling: settings out of range are refused", () => {
  const settings: Sampling = { temperature: 1, topP: 1, topK: 0, seed: 0 };
  for (const temperature of [0, -1, NaN, Infinity, 1e-38, 1e39]) {
    assertThrows(
      () => packSampling({ ...settings, temperature }),
      RangeError,
      `temperature is ${temperature}, must be`,
    );
  }
  for (const topP of [-0.1, 1.0001, NaN]) {
    assertThrows(() => packSampling({ ...settings, topP }), RangeError, `topP is ${topP}, must be 0 to 1`);
  }
  for (const value of [-1, 0.5, NaN, 2 ** 32]) {
    assertThrows(() => packSampling({ ...settings, topK: value }), RangeError, `topK is ${value}, must be an integer`);
    assertThrows(() => packSampling({ ...settings, seed: value }), RangeError, `seed is ${value}, must be an integer`);
  }
  const largest = packSampling({ temperature: 3e38, topP: 0, topK: 2 ** 32 - 1, seed: 2 ** 32 - 1 });
  assertEquals(largest.subarray(1), Uint32Array.of(0, 2 ** 32 - 1, 2 ** 32 - 1));
  packSampling({ ...settings, temperature: 2 ** -126 });
});

/** Llama 3's. */
const VOCABULARY = 128_256;

test("a large vocabulary: only tokens that may be drawn are, and extremes change nothing", async () => {
  const gpu = await testGpu();
  const all = { temperature: 1, topP: 1, topK: 0, seed: 3 };
  const draw = async (logits: Float32Array<ArrayBuffer>, sampling?: Sampling) =>
    (await choose(gpu, logits, 8, sampling, 2 ** 22)).tokens;
  const flat = new Float32Array(VOCABULARY).fill(2);
  const spread = await draw(flat, all);
  assert(Math.min(...spread) < VOCABULARY / 2 && Math.max(...spread) >= VOCABULARY / 2, `flat: ${spread}`);
  assert(Math.max(...spread) < VOCABULARY && new Set(spread).size === 8, `flat: ${spread}`);
  // Ties are kept together, and as nothing is left out, the draws are the same.
  for (const extreme of [{ topP: 1e-7 }, { topP: 1 - 2 ** -24 }, { topK: 1 }, { topK: 200_000 }]) {
    assertEquals(await draw(flat, { ...all, ...extreme }), spread, JSON.stringify(extreme));
  }

  const normal = randomLogits(VOCABULARY, 7);
  const best = normal.indexOf(normal.reduce((most, value) => Math.max(most, value)));
  for (const extreme of [{ topP: 0 }, { topP: 1e-7 }, { topK: 1 }, { temperature: 2 ** -126 }]) {
    assertEquals(await draw(normal, { ...all, ...extreme }), new Uint32Array(8).fill(best), JSON.stringify(extreme));
  }
  const whole = await draw(normal, all);
  assertEquals(await draw(normal, { ...all, topK: 200_000 }), whole);
  assert(new Set(whole).size > 1, `normal: ${whole}`);
  const peaked = normal.slice();
  peaked[VOCABULARY - 1] = 1e30;
  for (const sampling of [undefined, all, { ...all, topP: 1 - 2 ** -24 }]) {
    assertEquals(await draw(peaked, sampling), new Uint32Array(8).fill(VOCABULARY - 1));
  }
});

test("infinite logits: -Infinity is never drawn, +Infinity and nothing finite are no token", async () => {
  const gpu = await testGpu();
  const all = { temperature: 1, topP: 1, topK: 0, seed: 3 };
  const samplings = [undefined, all, { ...all, topP: 0.9 }, { ...all, topK: 5 }];
  const logits = new Float32Array(VOCABULARY).fill(-Infinity);
  for (const sampling of samplings) {
    const { tokens, position } = await choose(gpu, logits, 1, sampling, 2 ** 22);
    assertEquals([tokens[0], position], [NOT_A_NUMBER_TOKEN, 5], JSON.stringify(sampling));
  }
  const few = [9, 4321, VOCABULARY - 1];
  for (const token of few) logits[token] = -3e38;
  for (const sampling of samplings) {
    const { tokens } = await choose(gpu, logits, 8, sampling, 2 ** 22);
    assert(tokens.every((token) => few.includes(token)), `${JSON.stringify(sampling)}: ${tokens}`);
    if (!sampling) assertEquals(tokens, new Uint32Array(8).fill(9));
  }
  logits[77] = Infinity;
  for (const sampling of samplings) {
    const { tokens } = await choose(gpu, logits, 1, sampling, 2 ** 22);
    assertEquals(tokens[0], NOT_A_NUMBER_TOKEN, JSON.stringify(sampling));
  }
});

test("argmax of the lowest finite logits is the first of them", async () => {
  const gpu = await testGpu();
  const logits = new Float32Array(700).fill(-Infinity);
  logits.fill(-(2 - 2 ** -23) * 2 ** 127, 300);
  assertEquals((await choose(gpu, logits, 1)).tokens[0], 300);
});

test("samplingProbabilities: ties with the last token that is kept are kept", () => {
  const settings = { temperature: 1, seed: 0 };
  const logits = Float32Array.of(0, 1, 0, -Infinity, 0, -1);
  const kept = (sampling: Pick<Sampling, "topP" | "topK">) =>
    Array.from(samplingProbabilities(logits, { ...settings, ...sampling }), (p) => p > 0);
  assertEquals(kept({ topK: 2, topP: 1 }), [true, true, true, false, true, false]);
  // e / (e + 3 + 1/e) = 0.447, the next one makes 0.611.
  assertEquals(kept({ topK: 0, topP: 0.5 }), [true, true, true, false, true, false]);
  assertEquals(kept({ topK: 0, topP: 0.4 }), [false, true, false, false, false, false]);
});
