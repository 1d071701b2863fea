import { prepareFeedback } from "../../../quant/error_feedback.ts";
import { STAGES } from "../../../model/llama/layer.ts";
import { createCalibrator, createFixedCalibrator } from "../../../model/quantize/calibrator.ts";
import { readModel } from "../../../model/files/checkpoint.ts";
import { embedTokens, stageInput, stageProducts } from "../../../model/llama/forward.ts";
import type { Layer, Model } from "../../../model/llama/llama.ts";
import { openModel } from "../../../model/load.ts";
import { matmulPlain } from "../llama/matmul_plain.ts";
import { createCpuPool } from "../../../model/workers/cpu_pool.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../../assert.ts";

const FIXTURE = new URL("../../fixtures/llama_tied_gqa", import.meta.url).pathname;

const windows = Array.from({ length: 6 }, (_, i) => {
  const random = createRandom(i);
  return Uint32Array.from({ length: 20 + i }, () => random.integer(96));
});

async function loadFixture(): Promise<Model> {
  using checkpoint = await openModel(FIXTURE);
  return await readModel(checkpoint);
}

/** A layer whose q is scaled, standing for a quantized one. */
function spoil(layer: Layer): Layer {
  const q = layer.linears.q_proj;
  return { ...layer, linears: { ...layer.linears, q_proj: { ...q, weights: q.weights.map((w) => 1.5 * w) } } };
}

/** The input of each stage of the first layer and the residual stream before the stage, by the forward pass alone. */
function stageInputs({ config, embedding }: Model, layer: Layer) {
  const hidden = embedTokens(config, embedding, windows.map((tokens) => ({ tokens })));
  const lengths = windows.map(({ length }) => length);
  const flow = { config, layer, hidden, lengths, keyValues: [], matmul: matmulPlain };
  let products: readonly Float32Array[] = [];
  return STAGES.map((stage) => {
    const state = { input: stageInput(flow, stage, products), hidden: hidden.slice() };
    products = stageProducts(flow, stage, state.input);
    return state;
  });
}

/** Sum over tokens of a bᵀ in three loops. */
function correlate(a: Float32Array, b: Float32Array, tokens: number): Float64Array {
  const [rows, columns] = [a.length / tokens, b.length / tokens];
  const sum = new Float64Array(rows * columns);
  for (let t = 0; t < tokens; t++) {
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) sum[i * columns + j] += a[t * rows + i] * b[t * columns + j];
    }
  }
  return sum;
}

/**
 * Asserts sums over tokens of a bᵀ, where a was computed in f32 from values of a given size: each product then carries
 * an error of some 2^-24 of size * |b|, of which 16 are allowed for the steps that lead to a.
 */
function assertSums(actual: ArrayLike<number>, a: Float32Array, b: Float32Array, tokens: number, size: number): void {
  const largest = (values: Float32Array) => values.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  assertClose(actual, correlate(a, b, tokens), 16 * 2 ** -24 * tokens * size * largest(b));
}

Deno.test("calibrator: sums equal those of the forward pass, with drift and lack where an earlier matrix changed", async () => {
  const model = await loadFixture();
  const [original] = model.layers;
  const quantized = spoil(original);
  using pool = createCpuPool(2);
  const calibrator = createCalibrator(pool, model.config, { embedding: model.embedding, windows, correctTarget: true });
  const before = stageInputs(model, original);
  const after = stageInputs(model, quantized);
  const tokens = windows.reduce((sum, { length }) => sum + length, 0);
  for (const stage of STAGES.keys()) {
    // q is quantized after stage 0.
    const pair = { index: 0, original, quantized: stage === 0 ? original : quantized };
    await calibrator.advance(pair, stage);
    const { gram, drift, lack } = await calibrator.sumStage(pair, stage);
    const [x, y] = [stage === 0 ? before[0] : after[stage], before[stage]];
    const subtract = (a: Float32Array, b: Float32Array) => a.map((value, i) => value - b[i]);
    const sizeOf = (values: Float32Array) => Math.max(...values.map(Math.abs));
    assertSums(gram, x.input, x.input, tokens, sizeOf(x.input));
    assertSums(drift!, subtract(y.input, x.input), x.input, tokens, sizeOf(y.input));
    assertEquals(lack !== undefined, stage === 1 || stage === 3);
    if (lack) assertSums(lack, subtract(y.hidden, x.hidden), x.input, tokens, sizeOf(y.hidden));
    if (stage === 0) assert(drift!.every((value) => value === 0));
  }
});

Deno.test("createFixedCalibrator: repeats the sums of the unquantized model", async () => {
  const model = await loadFixture();
  using pool = createCpuPool(2);
  const { config, embedding } = model;
  const start = () => createCalibrator(pool, config, { embedding, windows, correctTarget: false });
  const fixed = await createFixedCalibrator(start(), model.layers);
  const [original] = model.layers;
  const live = start();
  const pair = { index: 0, original, quantized: original };
  await live.advance(pair, 0);
  const [measured, repeated] = [
    await live.sumStage(pair, 0),
    await fixed.sumStage({ index: 0, original, quantized: spoil(original) }, 0),
  ];
  const { prepare: _, ...sums } = measured;
  assertEquals(sums, { gram: repeated.gram, drift: repeated.drift, lack: repeated.lack });
  // Error feedback is prepared once for settings that are asked for again, and again for others.
  const prepared = [0.1, 0.1, 0.01, 0.1].map((damping) => repeated.prepare({ damping, order: "groups" }));
  assert(prepared[0] === prepared[1] && prepared[2] !== prepared[1] && prepared[3] !== prepared[0]);
  assertEquals(prepared[2], prepareFeedback(sums.gram, { damping: 0.01, order: "groups" }));
  const none = { embedding, windows: [], correctTarget: false };
  assertThrows(() => createCalibrator(pool, config, none), RangeError, "0 windows");
});
