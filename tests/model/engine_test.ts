import { loadEngine } from "../../model/engine.ts";
import { openDirectory } from "../../model/checkpoint.ts";
import { uploadWeights } from "../../model/engine_weights.ts";
import { createSession, type Session } from "../../model/session.ts";
import { checkpointSource } from "../../model/weight_source.ts";
import { assert } from "../assert.ts";

const fixture = (name: string) => new URL(`../fixtures/${name}`, import.meta.url);
const readJson = (name: string) => JSON.parse(Deno.readTextFileSync(fixture(name)));

/** Logits of Hugging Face transformers, in f32 where the engine has f16 weights and activations. */
const LOGIT_TOLERANCE = 5e-3;

/** One engine for all tests of this file. */
const engine = await loadEngine("tiny");

/** A continuation by Hugging Face transformers, with the gap between the two best logits of each step. */
interface Continuation {
  readonly prompt: readonly number[];
  readonly tokens: readonly number[];
  readonly gaps: readonly number[];
}

/**
 * Generates `tokens` greedily. Where the engine chooses another token, the gap must be too small to tell the two apart;
 * it then goes on from the expected tokens.
 */
async function follow(session: Session, { prompt, tokens, gaps }: Continuation) {
  let at = 0;
  let ties = 0;
  while (at < tokens.length) {
    session.truncate(0);
    const first = await session.prefill(Uint32Array.from([...prompt, ...tokens.slice(0, at)]));
    const rest = at + 1 < tokens.length ? await session.decode(tokens.length - at - 1) : new Uint32Array();
    const generated = [first, ...rest];
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
    session.truncate(0);
    await session.prefill(Uint32Array.from(tokens.slice(0, position + 1)));
    const logits = await session.logits();
    const wanted = expected(row);
    const difference = logits.reduce((most, logit, i) => Math.max(most, Math.abs(logit - wanted[i])), 0);
    assert(difference < LOGIT_TOLERANCE, `position ${position} differs by ${difference}`);
  }
}

Deno.test("greedy tokens equal those of Hugging Face transformers, 200 from each of 10 prompts", async () => {
  using session = await engine.createSession(256);
  let ties = 0;
  for (const continuation of readJson("greedy.json")) ties += await follow(session, continuation);
  assert(ties < 10, `${ties} ties`);
});

Deno.test("logits equal those of Hugging Face transformers", async () => {
  const { windows, positions } = readJson("embedded_model.json");
  const expected = new Float32Array(Deno.readFileSync(fixture("embedded_model_logits.f32")).buffer);
  const { vocabulary } = engine.config;
  using session = await engine.createSession(512);
  await assertLogits(
    session,
    windows[0],
    positions,
    (row) => expected.subarray(row * vocabulary, (row + 1) * vocabulary),
  );
});

for (const name of ["llama3_scaled_bias", "mistral_window", "qwen2_tied", "qwen3_wide_heads"]) {
  Deno.test(`${name}: logits and greedy tokens equal those of Hugging Face transformers`, async () => {
    using checkpoint = await openDirectory(fixture(name).pathname);
    const weights = await uploadWeights(engine.gpu, checkpointSource(checkpoint));
    const { tokens, positions, logits, greedy } = readJson(`${name}/expected.json`);
    {
      using session = await createSession(engine.gpu, weights, 200);
      await assertLogits(session, tokens, positions, (row) => logits[row]);
      if (greedy) assert(await follow(session, greedy) < 5, "few ties");
    }
    weights.destroy();
  });
}
