import { OutOfMemoryError } from "../../../kernels/gpu/device_errors.ts";
import type { Sampling } from "../../../kernels/tokens/sampler.ts";
import { planFew } from "../../../kernels/product/few/fused_few.ts";
import { readModel } from "../../../model/files/checkpoint.ts";
import { type EngineWeights, uploadWeights } from "../../../model/engine/engine_weights.ts";
import { forward, logitsOf } from "../../../model/llama/forward.ts";
import { type GenerateOptions, generateTokens } from "../../../model/engine/generate.ts";
import { loadEngine } from "../../../model/load_engine.ts";
import { matmulPlain } from "../llama/matmul_plain.ts";
import { openDirectory } from "../../../model/files/open_directory.ts";
import { openPacked } from "../../../model/files/open_packed.ts";
import { createSession, type Session } from "../../../model/engine/session.ts";
import { configOfShape, randomSource } from "../../../model/engine/random_source.ts";
import { checkpointSource } from "../../../model/engine/weight_source.ts";
import { readJson } from "../../fixture.ts";
import { assert, assertEquals, assertRejects, assertThrows } from "../../assert.ts";
import { inDirectory } from "../../temporary.ts";
import {
  ARCHITECTURE_FIXTURES,
  type Continuation,
  continueOnCpu,
  DENSITIES,
  type ExpectedLogits,
  fixture,
  LOGIT_TOLERANCE,
  quantizeFixture,
} from "../engine_helpers.ts";

/** One engine for all tests of this file. */
const engine = await loadEngine("tiny");

/** Prompts and continuations by Hugging Face transformers. */
const CONTINUATIONS: readonly Continuation[] = await readJson("greedy.json");

const promptsOf = (continuations: readonly Continuation[]) =>
  continuations.map(({ prompt }) => Uint32Array.from(prompt));

/** The most likely tokens of all sequences, `count` of each. */
async function continueGreedily(session: Session, prompts: readonly Uint32Array<ArrayBuffer>[], count: number) {
  const first = await session.prefill(prompts);
  const rest = await session.decode([...first.keys()], count - 1);
  return Array.from(first, (token, i) => [token, ...rest[i]]);
}

/**
 * Compares tokens with expected ones. Where another is chosen, the gap must be too small to tell the two apart, and what
 * follows differs with right.
 *
 * @returns how many tokens were compared
 */
function compare(generated: readonly number[], { tokens, gaps }: Continuation, what: string): number {
  const other = generated.findIndex((token, i) => token !== tokens[i]);
  if (other < 0) return generated.length;
  assert(gaps[other] < 2 * LOGIT_TOLERANCE, `${what}: token ${other} is ${generated[other]}, not ${tokens[other]}`);
  return other;
}

Deno.test("a batch: greedy tokens equal those of Hugging Face transformers, 200 from each of 10 prompts", async () => {
  using session = await engine.createSession(256, 10);
  const generated = await continueGreedily(session, promptsOf(CONTINUATIONS), 200);
  let compared = 0;
  for (const [i, tokens] of generated.entries()) compared += compare(tokens, CONTINUATIONS[i], `prompt ${i}`);
  assert(compared > 1500, `${compared} of 2000 tokens are compared`);
});

Deno.test("batches of 1, 3, 16 and 20: each sequence gets the tokens that it gets alone", async () => {
  const prompts = Array.from({ length: 16 }, (_, i) => {
    const { prompt, tokens } = CONTINUATIONS[i % 10];
    return Uint32Array.from(i < 10 ? prompt : [...prompt, ...tokens.slice(0, 17 * (i - 9))]);
  });
  const alone: Continuation[] = [];
  for (const prompt of prompts) {
    using session = await engine.createSession(256);
    const [tokens] = await continueGreedily(session, [prompt], 8);
    alone.push({ prompt: [...prompt], tokens, gaps: new Array(8).fill(0) });
  }
  for (const sequences of [1, 3, 16, 20]) {
    using session = await engine.createSession(256, sequences);
    const taken = Array.from({ length: sequences }, (_, i) => (i + 16 - sequences % 16) % 16);
    const generated = await continueGreedily(session, taken.map((i) => prompts[i]), 8);
    const compared = generated.map((tokens, i) => compare(tokens, alone[taken[i]], `sequence ${i}`));
    assert(compared.reduce((sum, count) => sum + count) > 6 * sequences, `${compared} tokens are compared`);
    assertEquals(session.lengths, taken.map((i) => prompts[i].length + 7));
  }
});

/** The largest difference of a sequence's logits from expected ones. */
function largestDifference(logits: Float32Array, row: number, expected: ArrayLike<number>): number {
  const own = logits.subarray(row * expected.length, (row + 1) * expected.length);
  return own.reduce((most, logit, i) => Math.max(most, Math.abs(logit - expected[i])), 0);
}

for (const name of ARCHITECTURE_FIXTURES) {
  Deno.test(`a batch of ${name}: logits of a step and greedy tokens equal those of Hugging Face transformers`, async () => {
    using checkpoint = await openDirectory(fixture(name).pathname);
    const weights = await uploadWeights(engine.gpu, checkpointSource(checkpoint));
    const { tokens, positions, logits, greedy } = await readJson<ExpectedLogits>(`${name}/expected.json`);
    {
      using session = await createSession(engine.gpu, weights, 200, positions.length);
      await session.prefill(positions.map((position: number) => Uint32Array.from(tokens.slice(0, position + 1))));
      // The last token of each is taken in again, by the kernels of a step.
      for (const [i, position] of positions.entries()) session.truncate(i, position);
      const order = [...positions.keys()].reverse();
      await session.decode(order, 1);
      const actual = await session.logits();
      for (const [row, i] of order.entries()) {
        const difference = largestDifference(actual, row, logits[i]);
        assert(difference < LOGIT_TOLERANCE, `position ${positions[i]} differs by ${difference}`);
      }
    }
    if (greedy) {
      // The prompt, and the prompt with some of what follows.
      const shifted = [0, 3, 11].map((shift) => ({
        prompt: [...greedy.prompt, ...greedy.tokens.slice(0, shift)],
        tokens: greedy.tokens.slice(shift),
        gaps: greedy.gaps.slice(shift),
      }));
      using session = await createSession(engine.gpu, weights, 100, 3);
      const generated = await continueGreedily(session, promptsOf(shifted), 19);
      const compared = generated.map((each, i) => compare(each, shifted[i], `sequence ${i}`));
      assert(compared.every((count) => count > 5), `${compared} tokens are compared`);
    }
    weights[Symbol.dispose]();
  });
}

Deno.test("a batch of packed weights whose channels are split over workgroups goes on as each sequence by itself", async () => {
  // Down has 2,048 channels: eight splits, more than the five sequences of the step.
  const shape = { name: "wide", source: "", hidden: 256, intermediate: 2048, layers: 1, heads: 4, keyValueHeads: 4 };
  const config = configOfShape({ ...shape, headSize: 64, vocabulary: 96, tiedHead: false }, 64);
  using weights = await uploadWeights(engine.gpu, randomSource(config, "twobit"));
  const { down } = weights.layers[0].linears;
  assert(down[0].kind === "packed" && planFew(engine.gpu.profile, down[0].rows, down[0].halfBlocks, 8).splits > 5);
  const prompts = [9, 3, 20, 1, 7].map((length) => Uint32Array.from({ length }, (_, i) => (i * 29 + length) % 96));
  const logitsOfBatch = async (prompts: readonly Uint32Array<ArrayBuffer>[]) => {
    using session = await createSession(engine.gpu, weights, 64, prompts.length);
    await continueGreedily(session, prompts, 2);
    return await session.logits();
  };
  const together = await logitsOfBatch(prompts);
  for (const [i, prompt] of prompts.entries()) {
    const alone = await logitsOfBatch([prompt]);
    // Whole layers take activations in 12 bits; a split left out changes an eighth of the sums.
    const squares = (values: Float32Array) => values.reduce((sum, value) => sum + value * value, 0);
    const error = Math.sqrt(squares(alone.map((value, at) => value - together[96 * i + at])) / squares(alone));
    assert(error < 0.02, `sequence ${i} differs by ${error}`);
  }
});

for (const [what, quantizerOf] of DENSITIES) {
  Deno.test(`a batch of packed weights with ${what}: logits and greedy tokens equal the CPU reference's`, () =>
    inDirectory(async (directory) => {
      await quantizeFixture("qwen3_wide_heads", `${directory}/q.safetensors`, quantizerOf);
      using packed = await openPacked(`${directory}/q.safetensors`);
      const model = await readModel(packed);
      const weights = await uploadWeights(engine.gpu, checkpointSource(packed));
      assert(weights.layers[0].linears.down.every(({ kind }) => kind === "packed"), "weights are packed on the device");
      // Few sequences, and so many that they are multiplied by another kernel.
      for (const lengths of [[60, 1, 17], [5, 60, 1, 2, 30, 31, 32, 33, 17, 18]]) {
        const prompts = lengths.map((length) => Uint32Array.from({ length }, (_, i) => (i * 29 + length) % 96));
        using session = await createSession(engine.gpu, weights, 100, prompts.length);
        const generated = await continueGreedily(session, prompts, 6);
        const actual = await session.logits();
        for (const [i, prompt] of prompts.entries()) {
          const what = `sequence ${i} of ${prompts.length}`;
          assert(compare(generated[i], continueOnCpu(model, prompt, 6), what) > 2, `${what}: few ties`);
          // Logits from which the last token was chosen follow all but the last.
          const tokens = Uint32Array.from([...prompt, ...generated[i].slice(0, -1)]);
          const { hidden } = forward(model, [{ tokens }], matmulPlain);
          const expected = logitsOf(model, hidden.subarray(-model.config.hidden), matmulPlain);
          const difference = largestDifference(actual, i, expected);
          assert(difference < LOGIT_TOLERANCE, `${what} differs by ${difference}`);
        }
      }
      weights[Symbol.dispose]();
    }));
}

/** Runs a generation to its end; returns tokens and summary of each sequence. */
async function generate(
  session: Session,
  prompts: readonly Uint32Array<ArrayBuffer>[],
  options: GenerateOptions,
) {
  const tokens: number[][] = prompts.map(() => []);
  const runs = generateTokens(session, prompts, options);
  while (true) {
    const { value, done } = await runs.next();
    if (done) return value.map((summary, i) => ({ ...summary, generated: tokens[i] }));
    tokens[value.index].push(...value.tokens);
  }
}

Deno.test("any sequences go on in any order, and those left out stay as they are", async () => {
  const six = CONTINUATIONS.slice(0, 6);
  using session = await engine.createSession(256, 6);
  const tokens = Array.from(await session.prefill(promptsOf(six)), (token) => [token]);
  for (const [sequences, count] of [[[5, 3, 0], 9], [[2], 4], [[1, 5, 4, 2, 0], 8], [[3, 4, 1], 7]] as const) {
    const chosen = await session.decode(sequences, count);
    for (const [i, sequence] of sequences.entries()) tokens[sequence].push(...chosen[i]);
  }
  let compared = 0;
  for (const [i, each] of tokens.entries()) compared += compare(each, six[i], `sequence ${i}`);
  assert(compared > 80, `${compared} of ${tokens.flat().length} tokens are compared`);
});

Deno.test("sequences end by themselves: a stop token, their room; the others go on as they would", async () => {
  const three = CONTINUATIONS.slice(0, 3);
  const prompts = promptsOf(three);
  // Where each sequence first has a token that is the seventh of the second.
  const stop = three[1].tokens[6];
  const ends = three.map(({ tokens }) => tokens.slice(0, 30).indexOf(stop)).map((at) => at < 0 ? 30 : at);
  assert(new Set(ends).size > 1, `sequences end at different lengths: ${ends}`);
  using session = await engine.createSession(256, 3);
  const ended = await generate(session, prompts, { stopTokens: [stop], maxTokens: 30 });
  for (const [i, { generated, tokens, promptTokens, reason }] of ended.entries()) {
    assertEquals(generated, three[i].tokens.slice(0, ends[i]), `sequence ${i}`);
    const expected = [ends[i], prompts[i].length, ends[i] < 30 ? "stop token" : "length"];
    assertEquals([tokens, promptTokens, reason], expected);
  }
  // What was computed beyond is forgotten; the last token of a full length is chosen and not taken in.
  assertEquals(session.lengths, prompts.map(({ length }, i) => length + Math.min(ends[i], 29)));

  const capacity = Math.max(...prompts.map(({ length }) => length)) + 4;
  using narrow = await engine.createSession(capacity, 3);
  const filled = await generate(narrow, prompts, {});
  for (const [i, { generated, reason }] of filled.entries()) {
    assertEquals(reason, "length");
    assertEquals(generated, three[i].tokens.slice(0, capacity - prompts[i].length + 1), `sequence ${i}`);
  }
});

Deno.test("a generation that is aborted says so for every sequence that hadn't ended", async () => {
  const prompts = promptsOf(CONTINUATIONS.slice(0, 2));
  using session = await engine.createSession(256, 2);
  const before = await generate(session, prompts, { signal: AbortSignal.abort() });
  assertEquals(before.map(({ reason, tokens }) => [reason, tokens]), [["aborted", 0], ["aborted", 0]]);
  const aborter = new AbortController();
  const runs = generateTokens(session, prompts, { signal: aborter.signal });
  await runs.next();
  aborter.abort();
  let last = await runs.next();
  while (!last.done) last = await runs.next();
  assertEquals(last.value.map(({ reason, tokens }) => [reason, tokens]), [["aborted", 1], ["aborted", 1]]);
});

Deno.test("a seed draws the same tokens in batches of 1, 3 and 16", async () => {
  const sampling: Sampling = { temperature: 1, topP: 0.95, topK: 0, seed: 2 ** 32 - 1 };
  const { prompt } = CONTINUATIONS[0];
  const draw = async (sequences: number, seed: number) => {
    using session = await engine.createSession(256, sequences);
    // The same prompt everywhere but in the second sequence: the seeds make the difference.
    const prompts = Array.from({ length: sequences }, (_, i) => Uint32Array.from(i === 1 ? [5, 6, 7] : prompt));
    return (await generate(session, prompts, { sampling: { ...sampling, seed }, maxTokens: 12 }))
      .map(({ generated }) => generated);
  };
  const sixteen = await draw(16, sampling.seed);
  const three = await draw(3, sampling.seed);
  assertEquals(three, sixteen.slice(0, 3));
  // Sequence 2 of them has the seed 1, after the largest seed comes 0.
  assertEquals((await draw(1, 1))[0], sixteen[2]);
  assertEquals((await draw(1, sampling.seed))[0], sixteen[0]);
  assertEquals(new Set(sixteen.map((tokens) => tokens.join())).size, 16);
});

Deno.test("generateBatch streams the texts that generate gives, and frees its cache", async () => {
  const prompts = ["Fellow citizens", "The", "We have met"];
  const held = engine.gpu.heldBytes;
  const texts = prompts.map(() => "");
  const pieces = engine.generateBatch(prompts, { maxTokens: 10 });
  let next = await pieces.next();
  for (; !next.done; next = await pieces.next()) texts[next.value.index] += next.value.text;
  const summaries = next.value;
  assertEquals(engine.gpu.heldBytes, held);
  for (const [i, prompt] of prompts.entries()) {
    let text = "";
    for await (const piece of engine.generate(prompt, { maxTokens: 10 })) text += piece;
    assertEquals(texts[i], text, prompt);
    assertEquals(summaries[i].promptTokens, engine.prompts.encodeText(prompt).length);
    assertEquals([summaries[i].tokens, summaries[i].reason], [10, "length"]);
  }
});

Deno.test("batches of the wrong size, prompts that don't fit and sequences that aren't there are refused", async () => {
  const generated = (prompts: readonly string[]) => () => engine.generateBatch(prompts).next();
  await assertRejects(generated([]), RangeError, "a batch of 0, must have 1 to 128 sequences");
  await assertRejects(generated(new Array(129).fill("a")), RangeError, "a batch of 129, must have 1 to 128 sequences");
  const long = "the ".repeat(5000);
  const tooLong = `prompt 1 has ${engine.prompts.encodeText(long).length} tokens, must have at most the model's`;
  await assertRejects(generated(["a", long]), RangeError, tooLong);
  await assertRejects(() => engine.createSession(4097, 2), RangeError, "must be 1 to the model's context of 4096");

  const session = await engine.createSession(10, 2);
  const one = Uint32Array.of(0);
  const prefill = (...prompts: Uint32Array<ArrayBuffer>[]) => () => session.prefill(prompts);
  await assertRejects(() => session.decode([0], 1), RangeError, "no token is known at position 0 of sequence 0");
  await assertRejects(prefill(one), TypeError, "1 prompts, must be one for each of 2 sequences");
  await assertRejects(prefill(one, new Uint32Array()), RangeError, "0 tokens for sequence 1, must be 1 or more");
  const full = "sequence 0 would have 11 tokens, must have at most its capacity of 10";
  await assertRejects(prefill(new Uint32Array(11), one), RangeError, full);
  const unknown = "token 0 of sequence 1 is 4096, must be below 4096";
  await assertRejects(prefill(one, Uint32Array.of(4096)), RangeError, unknown);
  assertEquals(session.lengths, [0, 0]);
  await session.prefill([Uint32Array.of(0, 1), one]);
  await assertRejects(() => session.decode([0], 9), RangeError, full);
  for (const sequences of [[], [2], [0, 0], [-1], [0.5]]) {
    await assertRejects(() => session.decode(sequences, 1), RangeError, "must be some of 0 to 1");
  }
  assertThrows(() => session.truncate(1, 2), RangeError, "length is 2, must be 0 to 1");
  const first = session.decode([0], 1);
  await assertRejects(() => session.decode([1], 1), Error, "the batch is at work");
  await first;
  session[Symbol.dispose]();
  await assertRejects(() => session.decode([0], 1), Error, "the batch is disposed");
});

Deno.test("a batch without room says how much it needs, and holds nothing", async () => {
  const { gpu } = engine;
  const held = gpu.heldBytes;
  const { layers, keyValueHeads, headSize } = engine.config;
  const neededBytes = 16 * 2 * 2 * layers * keyValueHeads * headSize * 512;
  const make = gpu.createStorage;
  gpu.createStorage = function (label, sizeBytes) {
    if (label.startsWith("values of layers")) throw new OutOfMemoryError("no room", sizeBytes, held);
    return make.call(this, label, sizeBytes);
  };
  try {
    const error = await assertRejects(() => engine.createSession(300, 16), OutOfMemoryError);
    assertEquals((error as OutOfMemoryError).neededBytes, neededBytes);
    assert(error.message.startsWith(`16 sequences of 300 tokens need ${neededBytes} bytes of device memory`));
  } finally {
    gpu.createStorage = make;
  }
  assertEquals(gpu.heldBytes, held);
});

Deno.test("logits that are not numbers are an error that names the sequence", async () => {
  using checkpoint = await openDirectory(fixture("qwen2_tied").pathname);
  const source = checkpointSource(checkpoint);
  const weights: EngineWeights = await uploadWeights(engine.gpu, {
    ...source,
    async half(name, rows, channels) {
      const matrix = await source.half(name, rows, channels);
      // Token 7 has an embedding that is not a number; with a tied head so is its logit, in every sequence that sees it.
      matrix.weights.fill(NaN, 7 * channels, 8 * channels);
      return matrix;
    },
  });
  {
    using session = await createSession(engine.gpu, weights, 20, 2);
    const failing = () => session.prefill([Uint32Array.of(1), Uint32Array.of(2, 3)]);
    await assertRejects(failing, Error, "logits at position 0 of sequence 0 are not numbers");
    assertEquals(session.lengths, [1, 2]);
    await assertRejects(() => session.decode([1], 1), RangeError, "no token is known at position 2 of sequence 1");
  }
  weights[Symbol.dispose]();
});
