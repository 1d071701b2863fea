/** What programs call: logits, probabilities of tokens, chat. Expected logits are those of Hugging Face transformers. */
import { createSession } from "../../../model/engine/session.ts";
import { uploadWeights } from "../../../model/engine/engine_weights.ts";
import { checkpointSource } from "../../../model/engine/weight_source.ts";
import { readModel } from "../../../model/files/checkpoint.ts";
import { openDirectory } from "../../../model/files/open_directory.ts";
import { forward, logitsOf } from "../../../model/llama/forward.ts";
import { matmulPlain } from "../llama/matmul_plain.ts";
import { loadEngine } from "../../../model/load_engine.ts";
import { assert, assertClose, assertEquals, assertRejects, assertThrows } from "../../assert.ts";
import { readF32, readJson } from "../../fixture.ts";
import { fixture, LOGIT_TOLERANCE } from "../engine_helpers.ts";

/** One engine for all tests of this file. */
const engine = await loadEngine("tiny");

/** A text of the embedded model, and positions with logits by transformers (make_embedded_model.py). */
const { windows: [window], positions } = await readJson<{ windows: number[][]; positions: number[] }>(
  "embedded_model.json",
);
const EXPECTED = await readF32("embedded_model_logits.f32");

const { vocabulary } = engine.config;
const expectedRow = (row: number) => EXPECTED.subarray(row * vocabulary, (row + 1) * vocabulary);

function logProbability(logits: Float32Array, token: number): number {
  const largest = logits.reduce((most, value) => Math.max(most, value), -Infinity);
  return logits[token] - largest - Math.log(logits.reduce((sum, value) => sum + Math.exp(value - largest), 0));
}

function furthest(a: Float32Array, b: Float32Array): number {
  assertEquals(a.length, b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
}

Deno.test("engine.logits equal those of Hugging Face transformers, at given positions in any order and at all", async () => {
  const order = [...positions.keys()].reverse();
  const some = await engine.logits(window, order.map((row) => positions[row]));
  const held = engine.gpu.heldBytes;
  const all = await engine.logits(window.slice(0, 64));
  assertEquals([some.length, all.length], [positions.length, 64]);
  for (const [i, row] of order.entries()) {
    const difference = furthest(some[i], expectedRow(row));
    assert(difference < LOGIT_TOLERANCE, `position ${positions[row]} differs by ${difference}`);
    const alone = all[positions[row]] ?? some[i];
    assert(furthest(alone, some[i]) < LOGIT_TOLERANCE, `position ${positions[row]} of all`);
  }
  assertEquals(engine.gpu.heldBytes, held);
});

Deno.test("logits of a text that takes two passes equal the CPU reference's", async () => {
  using checkpoint = await openDirectory(fixture("llama3_scaled_bias").pathname);
  const config = { ...checkpoint.config, context: 1024 };
  using weights = await uploadWeights(engine.gpu, { ...checkpointSource(checkpoint), config });
  const model = { ...await readModel(checkpoint), config };
  const tokens = Uint32Array.from({ length: 600 }, (_, i) => (i * i + 7 * i) % config.vocabulary);
  const { hidden } = forward(model, [{ tokens }], matmulPlain);
  const wanted = [511, 512, 599, 130];
  using session = await createSession(engine.gpu, weights, 600);
  const logits = await session.logitsAfter(tokens, wanted);
  for (const [i, position] of wanted.entries()) {
    const row = hidden.subarray(position * config.hidden, (position + 1) * config.hidden);
    const difference = furthest(logits[i], logitsOf(model, row, matmulPlain));
    assert(difference < LOGIT_TOLERANCE, `position ${position} differs by ${difference}`);
  }
});

Deno.test("engine.logits refuses positions outside the tokens, and tokens that no model has", async () => {
  await assertRejects(() => engine.logits([1, 2], [2]), RangeError, "position is 2, must be 0 to 1");
  await assertRejects(() => engine.logits([1, 2], [0.5]), RangeError, "position is 0.5, must be 0 to 1");
  await assertRejects(() => engine.logits([]), RangeError, "0 tokens, must be 1 or more");
  await assertRejects(() => engine.logits([4096]), RangeError, "token 0 is 4096, must be below 4096");
  await assertRejects(() => engine.logits(new Uint32Array(4097)), RangeError, "must be 1 to the model's context");
});

Deno.test("log-probabilities after prompts and after steps are the softmax of transformers' logits", async () => {
  const near = positions.filter((position) => position < 300);
  const prompts = near.map((position) => Uint32Array.from(window.slice(0, position + 1)));
  const following = Uint32Array.from(near, (position) => window[position + 1]);
  const expected = [...following].map((token, row) => logProbability(expectedRow(row), token));
  using session = await engine.createSession(300, near.length);
  await session.prefill(prompts);
  assertClose(await session.logProbabilities(following), expected, 2 * LOGIT_TOLERANCE);
  // The last token of each is taken in again, by the kernels of a step of several tokens and of one.
  for (const sequences of [[3, 0, 2, 1], [2], [0, 3]]) {
    for (const sequence of sequences) session.truncate(sequence, near[sequence]);
    await session.decode(sequences, 1);
    const found = await session.logProbabilities(Uint32Array.from(sequences, (sequence) => following[sequence]));
    assertClose(found, sequences.map((sequence) => expected[sequence]), 2 * LOGIT_TOLERANCE);
  }
});

Deno.test("generated pieces carry tokens and their log-probabilities where asked, by the unmodified softmax", async () => {
  const sampling = { temperature: 1.7, topK: 50, topP: 0.9, seed: 5 };
  const prompt = "Fellow citizens";
  const options = { maxTokens: 12, sampling };
  let plain = "";
  for await (const piece of engine.generate(prompt, options)) plain += piece;
  let text = "";
  const tokens: number[] = [];
  const found: number[] = [];
  for await (const piece of engine.generate(prompt, { ...options, logProbabilities: true })) {
    text += piece.text;
    tokens.push(...piece.tokens);
    found.push(...piece.logProbabilities ?? []);
  }
  assertEquals([text, tokens.length, found.length], [plain, 12, 12]);
  assertEquals(text, engine.tokenizer.decode(tokens));
  const start = engine.prompts.encodeText(prompt);
  const logits = await engine.logits([...start, ...tokens]);
  const expected = tokens.map((token, i) => logProbability(logits[start.length - 1 + i], token));
  assertClose(found, expected, 2 * LOGIT_TOLERANCE);
});

Deno.test("a generation frees its cache also where nobody reads on", async () => {
  const read = async () => {
    for await (const piece of engine.generate("Fellow citizens")) return piece;
  };
  await read();
  const held = engine.gpu.heldBytes;
  await read();
  for await (const _piece of engine.generateBatch(["Fellow citizens", "The"])) break;
  assertEquals(engine.gpu.heldBytes, held);
});

Deno.test("numbers of tokens are whole, or refused by their value", async () => {
  const generate = (options: object) => Array.fromAsync(engine.generate("Fellow", options));
  for (const maxTokens of [1.5, 0, -1, NaN]) {
    const wanted = `maxTokens is ${maxTokens}, must be 1 or more and whole`;
    await assertRejects(() => generate({ maxTokens }), RangeError, wanted);
    await assertRejects(() => generate({ maxTokens, context: 64 }), RangeError, wanted);
  }
  for (const context of [64.5, 0, NaN, Infinity]) {
    await assertRejects(() => generate({ context }), RangeError, `capacity is ${context} tokens, must be 1 to`);
  }
});

for (const owner of ["its caller's", "its own"]) {
  Deno.test(`an engine that is disposed says so, on ${owner} device, in every call and from every session`, async () => {
    const disposed = await loadEngine("tiny", owner === "its own" ? {} : { gpu: engine.gpu });
    const session = await disposed.createSession(64);
    await session.prefill([Uint32Array.of(1, 2)]);
    const started = disposed.generate("Fellow", { maxTokens: 200 });
    await started.next();
    disposed[Symbol.dispose]();
    disposed[Symbol.dispose]();
    const calls: Readonly<Record<string, () => Promise<unknown>>> = {
      generate: () => Array.fromAsync(disposed.generate("Fellow")),
      logits: () => disposed.logits([1, 2]),
      createSession: () => disposed.createSession(64),
      "a generation that had begun": () => Array.fromAsync(started),
      "session.prefill": () => session.prefill([Uint32Array.of(3)]),
      "session.decode": () => session.decode([0], 1),
      "session.logits": () => session.logits(),
      "session.logProbabilities": () => session.logProbabilities(Uint32Array.of(1)),
      "session.score": () => session.score(Uint32Array.of(3), Uint32Array.of(4)),
      "session.logitsAfter": () => session.logitsAfter(Uint32Array.of(3), [0]),
    };
    for (const [name, call] of Object.entries(calls)) {
      await assertRejects(call, Error, "the engine is disposed, must be another", name);
    }
    session[Symbol.dispose]();
    await assertRejects(() => session.decode([0], 1), Error, "the session is disposed");
  });
}

Deno.test("a batch's pieces carry the tokens of each text, and log-probabilities where asked", async () => {
  const prompts = ["Fellow citizens", "The", "We have met"];
  const tokens: number[][] = prompts.map(() => []);
  const found: number[][] = prompts.map(() => []);
  // Sequences end one after the other, so that steps of several sizes have a part.
  const [stop] = engine.tokenizer.encode(",");
  for await (
    const piece of engine.generateBatch(prompts, { maxTokens: 8, stopTokens: [stop], logProbabilities: true })
  ) {
    tokens[piece.index].push(...piece.tokens);
    found[piece.index].push(...piece.logProbabilities ?? []);
  }
  for (const [i, prompt] of prompts.entries()) {
    const start = engine.prompts.encodeText(prompt);
    const logits = await engine.logits([...start, ...tokens[i]]);
    const expected = tokens[i].map((token, at) => logProbability(logits[start.length - 1 + at], token));
    assertClose(found[i], expected, 2 * LOGIT_TOLERANCE);
  }
});

Deno.test("engine.renderChat says that a model without a chat template has none", () => {
  assertThrows(() => engine.renderChat([{ role: "user", content: "hi" }]), TypeError, "tiny has no chat template");
});
