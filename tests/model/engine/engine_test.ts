import { readModel } from "../../../model/files/checkpoint.ts";
import type { Engine } from "../../../model/engine/engine.ts";
import { createEngineScorer } from "../../../model/evaluate/engine_scorer.ts";
import { loadEngine } from "../../../model/load_engine.ts";
import { openDirectory } from "../../../model/files/open_directory.ts";
import { uploadWeights } from "../../../model/engine/engine_weights.ts";
import { forward, logitsOf } from "../../../model/llama/forward.ts";
import { type GenerateOptions, generateTokens } from "../../../model/engine/generate.ts";
import { matmulPlain } from "../llama/matmul_plain.ts";
import { createMatmulSimd } from "../../../model/llama/matmul_simd.ts";
import { openPacked } from "../../../model/files/open_packed.ts";
import { createSession, type Session } from "../../../model/engine/session.ts";
import { mean } from "../../../model/host/statistics.ts";
import { checkpointSource } from "../../../model/engine/weight_source.ts";
import { assert, assertClose, assertEquals, assertRejects, assertThrows } from "../../assert.ts";
import { readF32, readJson } from "../../fixture.ts";
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

/** Windows, logits of some positions of the first, and scores of the embedded model (make_embedded_model.py). */
interface Expected {
  readonly windows: readonly number[][];
  readonly positions: readonly number[];
  readonly loss: readonly number[];
  readonly top1: readonly number[];
  readonly choices: readonly { context: number[]; continuations: number[][]; scores: number[] }[];
}

/**
 * Generates `tokens` greedily. Where the engine chooses another token, the gap must be too small to tell the two apart;
 * it then goes on from the expected tokens.
 */
async function follow(session: Session, { prompt, tokens, gaps }: Continuation) {
  let at = 0;
  let ties = 0;
  while (at < tokens.length) {
    session.truncate(0, 0);
    const first = await session.prefill([Uint32Array.from([...prompt, ...tokens.slice(0, at)])]);
    const [rest] = at + 1 < tokens.length ? await session.decode([0], tokens.length - at - 1) : [[]];
    const generated = [...first, ...rest];
    const other = generated.findIndex((token, i) => token !== tokens[at + i]);
    if (other < 0) return ties;
    at += other;
    assert(gaps[at] < 2 * LOGIT_TOLERANCE, `token ${at} is ${generated[other]}, must be ${tokens[at]}`);
    at++;
    ties++;
  }
  return ties;
}

/** Logits after each of some positions against expected ones. */
async function assertLogits(
  session: Session,
  tokens: readonly number[],
  positions: readonly number[],
  expected: (row: number) => ArrayLike<number>,
) {
  for (const [row, position] of positions.entries()) {
    session.truncate(0, 0);
    await session.prefill([Uint32Array.from(tokens.slice(0, position + 1))]);
    const logits = await session.logits();
    const wanted = expected(row);
    const difference = logits.reduce((most, logit, i) => Math.max(most, Math.abs(logit - wanted[i])), 0);
    assert(difference < LOGIT_TOLERANCE, `position ${position} differs by ${difference}`);
  }
}

Deno.test("greedy tokens equal those of Hugging Face transformers, 200 from each of 10 prompts", async () => {
  using session = await engine.createSession(256);
  let ties = 0;
  for (const continuation of await readJson<Continuation[]>("greedy.json")) ties += await follow(session, continuation);
  assert(ties < 10, `${ties} ties`);
});

Deno.test("logits equal those of Hugging Face transformers", async () => {
  const { windows, positions } = await readJson<Expected>("embedded_model.json");
  const expected = await readF32("embedded_model_logits.f32");
  const { vocabulary } = engine.config;
  using session = await engine.createSession(512);
  await assertLogits(
    session,
    windows[0],
    positions,
    (row) => expected.subarray(row * vocabulary, (row + 1) * vocabulary),
  );
});

for (const name of ARCHITECTURE_FIXTURES) {
  Deno.test(`${name}: logits and greedy tokens equal those of Hugging Face transformers`, async () => {
    using checkpoint = await openDirectory(fixture(name).pathname);
    const weights = await uploadWeights(engine.gpu, checkpointSource(checkpoint));
    const { tokens, positions, logits, greedy } = await readJson<ExpectedLogits>(`${name}/expected.json`);
    {
      using session = await createSession(engine.gpu, weights, 200);
      await assertLogits(session, tokens, positions, (row) => logits[row]);
    }
    if (greedy) {
      // Room within the original context of longrope, whose factors depend on it.
      using session = await createSession(engine.gpu, weights, 100);
      assert(await follow(session, greedy) < 5, "few ties");
    }
    weights[Symbol.dispose]();
  });
}

Deno.test("windows score as Hugging Face transformers scores them: loss to 0.05 %, top-1, KL to itself 0", async () => {
  const { windows, loss, top1 } = await readJson<Expected>("embedded_model.json");
  const tasks = (reference: "keep" | "compare") =>
    [0, 1].map((index) => ({ index, tokens: Uint32Array.from(windows[index]), reference }));
  using scorer = createEngineScorer(engine.gpu, engine.weights);
  const [first, second] = await scorer.scoreWindows(tasks("keep"));
  for (const [i, { negativeLogLikelihood }] of [first, second].entries()) {
    assert(Math.abs(mean(negativeLogLikelihood) / loss[i] - 1) < 5e-4, `window ${i}: ${mean(negativeLogLikelihood)}`);
  }
  const wrong = first.top1.reduce((sum, hit, t) => sum + Math.abs(hit - (top1[t] === windows[0][t + 1] ? 1 : 0)), 0);
  assert(wrong <= 2, `${wrong} tokens are right in one and wrong in the other`);
  const [again] = await scorer.scoreWindows(tasks("compare").slice(0, 1));
  assert(mean(again.divergence!) < 1e-6, `KL to itself is ${mean(again.divergence!)}`);
});

Deno.test("choices score as Hugging Face transformers scores them", async () => {
  const { choices } = await readJson<Expected>("embedded_model.json");
  using scorer = createEngineScorer(engine.gpu, engine.weights);
  const items = choices.map((item) => ({
    context: Uint32Array.from(item.context),
    continuations: item.continuations.map((tokens) => Uint32Array.from(tokens)),
  }));
  const [scores] = await scorer.scoreChoices([items]);
  for (const [i, { scores: expected }] of choices.entries()) assertClose(scores[i], expected, 0.02);
});

for (const [what, quantizerOf] of DENSITIES) {
  for (const name of ["llama3_scaled_bias", "qwen3_wide_heads", "glm_partial"]) {
    Deno.test(`${name}, packed with ${what}: the engine equals the CPU reference`, () =>
      inDirectory(async (directory) => {
        await quantizeFixture(name, `${directory}/q.safetensors`, quantizerOf);
        using packed = await openPacked(`${directory}/q.safetensors`);
        const model = await readModel(packed);
        const { vocabulary } = model.config;
        const weights = await uploadWeights(engine.gpu, checkpointSource(packed));
        assert(
          weights.layers[0].linears.down.every(({ kind }) => kind === "packed"),
          "weights are packed on the device",
        );
        const tokens = Uint32Array.from({ length: 60 }, (_, i) => (i * 29) % 96);
        const { hidden } = forward(model, [{ tokens }], matmulPlain);
        const logits = logitsOf(model, hidden, matmulPlain);
        const row = (position: number) => logits.subarray(position * vocabulary, (position + 1) * vocabulary);
        {
          using session = await createSession(engine.gpu, weights, 100);
          const positions = [0, 17, 59];
          await assertLogits(session, [...tokens], positions, (i) => row(positions[i]));
          await follow(session, continueOnCpu(model, tokens, 10));
        }
        weights[Symbol.dispose]();
      }));
  }
}

Deno.test("generate streams the text of its tokens; two engines and a second load after dispose work", async () => {
  const read = async (from: Engine) => {
    let text = "";
    for await (const piece of from.generate("Fellow citizens", { maxTokens: 12 })) text += piece;
    return text;
  };
  const expected = await read(engine);
  const { prompts, tokenizer } = engine;
  using session = await engine.createSession(64);
  const first = await session.prefill([prompts.encodeText("Fellow citizens")]);
  const [rest] = await session.decode([0], 11);
  assertEquals(expected, tokenizer.decode([...first, ...rest]));
  {
    using second = await loadEngine("tiny");
    assertEquals(await read(second), expected);
  }
  using third = await loadEngine("tiny", { gpu: engine.gpu });
  assertEquals(await read(third), expected);
});

Deno.test("generation ends at a stop token, at its length or when it is aborted, and forgets what was overcomputed", async () => {
  const { tokens, prompt } = (await readJson<Continuation[]>("greedy.json"))[0];
  using session = await engine.createSession(256);
  const run = async (options: GenerateOptions) => {
    session.truncate(0, 0);
    const generated: number[] = [];
    const pieces = generateTokens(session, [Uint32Array.from(prompt)], options);
    while (true) {
      const { value, done } = await pieces.next();
      if (done) return { generated, ...value[0] };
      generated.push(...value.tokens);
    }
  };
  const stop = tokens.indexOf(tokens[9]);
  const stopped = await run({ stopTokens: [tokens[9]] });
  assertEquals([stopped.reason, stopped.generated], ["stop token", tokens.slice(0, stop)]);
  assertEquals(session.lengths, [prompt.length + stop]);
  assertEquals((await run({ maxTokens: 7 })).generated, tokens.slice(0, 7));
  const aborted = await run({ signal: AbortSignal.abort() });
  assertEquals([aborted.reason, aborted.tokens], ["aborted", 0]);
  await assertRejects(() => run({ maxTokens: 0 }), RangeError, "maxTokens is 0, must be 1 or more");
});

Deno.test("sequences beyond their capacity or the context, and empty prompts, are refused", async () => {
  await assertRejects(() => engine.createSession(4097), RangeError, "must be 1 to the model's context of 4096");
  using session = await engine.createSession(10);
  assertEquals(session.capacity, 10);
  await assertRejects(() => session.decode([0], 1), RangeError, "must have a prompt before");
  await assertRejects(() => session.prefill([new Uint32Array()]), RangeError, "0 tokens, must be 1 or more");
  await assertRejects(() => session.prefill([new Uint32Array(11)]), RangeError, "must have at most its capacity of 10");
  await session.prefill([Uint32Array.of(0, 1)]);
  await assertRejects(() => session.decode([0], 9), RangeError, "would have 11 tokens");
  assertThrows(() => session.truncate(0, 3), RangeError, "must be 0 to 2");
});

Deno.test("a session goes on from where it is truncated, and from nowhere where nothing is known", async () => {
  const { tokens, prompt } = (await readJson<Continuation[]>("greedy.json"))[0];
  using session = await engine.createSession(256);
  await session.prefill([Uint32Array.from(prompt)]);
  const [generated] = await session.decode([0], 20);
  session.truncate(0, prompt.length + 5);
  assertEquals(await session.decode([0], 10), [generated.slice(5, 15)]);
  session.truncate(0, prompt.length);
  assertEquals(await session.decode([0], 3), [generated.slice(0, 3)]);
  await session.score(Uint32Array.of(5, 6), Uint32Array.of(6, 7));
  await assertRejects(() => session.decode([0], 1), RangeError, "must have a prompt before");
  assertEquals([...generated.slice(0, 3)], tokens.slice(1, 4));
});

Deno.test("tokens outside the vocabulary, calls at the same time and after dispose are refused", async () => {
  const session = await engine.createSession(64);
  await assertRejects(
    () => session.prefill([Uint32Array.of(0, 4096)]),
    RangeError,
    "token 1 is 4096, must be below 4096",
  );
  const scoring = () => session.score(Uint32Array.of(0), Uint32Array.of(9999));
  await assertRejects(scoring, RangeError, "token 0 is 9999, must be below 4096");
  const first = session.prefill([Uint32Array.of(0)]);
  await assertRejects(() => session.decode([0], 1), Error, "the session is at work");
  await first;
  const held = engine.gpu.heldBytes;
  session[Symbol.dispose]();
  const freed = engine.gpu.heldBytes;
  assert(freed < held, "dispose frees");
  session[Symbol.dispose]();
  assertEquals(engine.gpu.heldBytes, freed);
  await assertRejects(() => session.decode([0], 1), Error, "the session is disposed");
});

Deno.test("sessions of one engine work at the same time, and timers run meanwhile", async () => {
  const read = async () => {
    let text = "";
    for await (const piece of engine.generate("Fellow citizens", { maxTokens: 12 })) text += piece;
    return text;
  };
  let ticks = 0;
  const timer = setInterval(() => ticks++, 5);
  const [a, b] = await Promise.all([read(), read()]);
  clearInterval(timer);
  assertEquals(a, b);
  assert(ticks > 2, `${ticks} ticks`);
});

Deno.test("a context of 4,000 tokens: logits and the tokens that follow equal the CPU reference's", async () => {
  using checkpoint = await openDirectory(fixture("llama3_scaled_bias").pathname);
  const config = { ...checkpoint.config, context: 4096 };
  const weights = await uploadWeights(engine.gpu, { ...checkpointSource(checkpoint), config });
  const model = { ...await readModel(checkpoint), config };
  const prompt = Uint32Array.from({ length: 4000 }, (_, i) => (i * i + 7 * i) % config.vocabulary);
  const matmul = await createMatmulSimd();
  const expected: Continuation = continueOnCpu(model, prompt, 3, matmul);
  {
    using session = await createSession(engine.gpu, weights, 4010);
    await follow(session, expected);
    const { hidden } = forward(model, [{ tokens: prompt }], matmul);
    const last = logitsOf(model, hidden.subarray(-config.hidden), matmul);
    await assertLogits(session, [...prompt], [prompt.length - 1], () => last);
  }
  weights[Symbol.dispose]();
});
