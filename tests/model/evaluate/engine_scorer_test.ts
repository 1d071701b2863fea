import { OutOfMemoryError } from "../../../kernels/gpu/device_errors.ts";
import { openGpu } from "../../../kernels/gpu/gpu.ts";
import { uploadWeights } from "../../../model/engine/engine_weights.ts";
import { checkpointSource } from "../../../model/engine/weight_source.ts";
import { createEngineScorer } from "../../../model/evaluate/engine_scorer.ts";
import { createJoinedPass, joinedShape } from "../../../model/evaluate/joined_pass.ts";
import { scoreChoices, scoreWindow } from "../../../model/evaluate/score.ts";
import { readModel } from "../../../model/files/checkpoint.ts";
import { openDirectory } from "../../../model/files/open_directory.ts";
import type { Model } from "../../../model/llama/llama.ts";
import { matmulPlain } from "../llama/matmul_plain.ts";
import { assert, assertClose, assertEquals, assertRejects } from "../../assert.ts";
import { fixture } from "../engine_helpers.ts";

/** A log-likelihood's error where activations are rounded to f16: as that of logits. */
const TOLERANCE = 5e-3;

const VOCABULARY = 96;

function text(length: number, seed: number): Uint32Array<ArrayBuffer> {
  return Uint32Array.from({ length }, (_, i) => (i * 29 + seed * 7 + (i * i) % 11) % VOCABULARY);
}

/** Other weights, so that there is something to compare. */
function disturbed(model: Model): Model {
  return { ...model, finalNorm: model.finalNorm.map((value, i) => value * (1 + 0.1 * Math.sin(i))) };
}

for (const name of ["llama3_scaled_bias", "mistral_window"]) {
  Deno.test(`${name}: windows and choices of many lengths side by side score as the CPU scores them one by one`, async () => {
    using gpu = await openGpu();
    using checkpoint = await openDirectory(fixture(name).pathname);
    const model = await readModel(checkpoint);
    const other = disturbed(model);
    const windows = [33, 20, 33, 9, 33].map(text);
    const tasks = (reference: "keep" | "compare") =>
      windows.map((tokens, index) => ({ index, tokens, reference: index < 3 ? reference : "none" as const }));
    using scorer = createEngineScorer(gpu);
    await scorer.setModel(model);
    await scorer.scoreWindows(tasks("keep"));
    await scorer.setModel(other);
    const told: number[] = [];
    const found = await scorer.scoreWindows(tasks("compare"), (done) => told.push(done));
    assertEquals(told.at(-1), windows.length);
    for (const [i, tokens] of windows.entries()) {
      const reference = new Float32Array((tokens.length - 1) * VOCABULARY);
      scoreWindow(model, tokens, matmulPlain, { keep: reference });
      const expected = scoreWindow(other, tokens, matmulPlain, i < 3 ? { reference } : {});
      assertClose(found[i].negativeLogLikelihood, expected.negativeLogLikelihood, TOLERANCE);
      assert(found[i].top1.filter((hit, t) => hit !== expected.top1[t]).length <= 1, `window ${i}`);
      assertEquals(found[i].divergence === undefined, expected.divergence === undefined);
      if (expected.divergence) assertClose(found[i].divergence!, expected.divergence, TOLERANCE);
    }
    const items = [[5, 3], [1, 8], [17, 1]].map(([context, continuation], i) => ({
      context: text(context, i),
      continuations: [text(continuation, i + 4), text(continuation + i, i + 5)],
    }));
    const batches = [items.slice(0, 2), items.slice(2)];
    const scores = await scorer.scoreChoices(batches);
    for (const [i, batch] of batches.entries()) {
      for (const [item, expected] of scoreChoices(other, batch, matmulPlain).entries()) {
        assertClose(scores[i][item], expected, 9 * TOLERANCE);
      }
    }
    await assertRejects(
      () => scorer.scoreWindows([{ index: 9, tokens: windows[0], reference: "compare" }]),
      TypeError,
      "window 9 has no reference, must be scored by the reference first",
    );
    await assertRejects(
      () => scorer.scoreWindows([{ index: 0, tokens: Uint32Array.of(1, VOCABULARY, 2), reference: "none" }]),
      RangeError,
      `token is ${VOCABULARY}, must be below ${VOCABULARY}`,
    );
  });
}

Deno.test("joined passes: a sequence that takes several comes to the same as in one", async () => {
  using gpu = await openGpu();
  using checkpoint = await openDirectory(fixture("llama3_scaled_bias").pathname);
  using weights = await uploadWeights(gpu, checkpointSource(checkpoint));
  const { hidden } = checkpoint.config;
  const tokens = text(50, 1);
  const streams: Float32Array[] = [];
  for (const atOnce of [50, 24]) {
    using pass = await createJoinedPass(gpu, weights, { sequences: 1, tokens: atOnce, longest: 50 });
    const stream = new Float32Array(tokens.length * hidden);
    await pass.takeIn([tokens], async (buffer, first) => {
      const rows = Math.min(atOnce, tokens.length - first);
      stream.set(await gpu.readF32(buffer, rows * hidden), first * hidden);
    });
    streams.push(stream);
  }
  assertClose(streams[1], streams[0], 1e-3);
});

Deno.test("windows that the device has no room for side by side are scored in narrower passes", async () => {
  using gpu = await openGpu();
  using checkpoint = await openDirectory(fixture("llama3_scaled_bias").pathname);
  using weights = await uploadWeights(gpu, checkpointSource(checkpoint));
  const tasks = Array.from(
    { length: 48 },
    (_, index) => ({ index, tokens: text(257, index), reference: "none" as const }),
  );
  const { createStorage } = gpu;
  const sizes: number[] = [];
  const score = async (room: number) => {
    gpu.createStorage = (label, sizeBytes) => {
      sizes.push(sizeBytes);
      if (sizeBytes > room) throw new OutOfMemoryError(`no room for ${label}`, sizeBytes, gpu.heldBytes);
      return createStorage.call(gpu, label, sizeBytes);
    };
    using scorer = createEngineScorer(gpu, weights);
    return await scorer.scoreWindows(tasks).finally(() => Object.assign(gpu, { createStorage }));
  };
  const expected = await score(Infinity);
  const widest = Math.max(...sizes);
  const found = await score(widest / 2);
  for (const [i, { negativeLogLikelihood }] of found.entries()) {
    assertClose(negativeLogLikelihood, expected[i].negativeLogLikelihood, TOLERANCE);
  }
  await assertRejects(() => score(widest / 64), OutOfMemoryError);
});

Deno.test("joinedShape: thousands of tokens at once, less of a wide model, parts of what is longer", async () => {
  using checkpoint = await openDirectory(fixture("llama3_scaled_bias").pathname);
  const { config } = checkpoint;
  const shapeOf = (count: number, longest: number, wide = config, bindingBytes = 2 ** 30, parts = 1) =>
    joinedShape(wide, count, longest, bindingBytes, parts);
  assertEquals(shapeOf(128, 512), { sequences: 16, tokens: 512, longest: 512 });
  assertEquals(shapeOf(3, 512), { sequences: 3, tokens: 512, longest: 512 });
  assertEquals(shapeOf(2, 10000), { sequences: 1, tokens: 8192, longest: 10000 });
  // 2^28 bytes of gate and up, 2 * 11008 wide, or as many as the device binds.
  const wide = { ...config, intermediate: 11008 };
  assertEquals(shapeOf(9, 512, wide), { sequences: 5, tokens: 512, longest: 512 });
  assertEquals(shapeOf(9, 512, wide, 2 ** 27), { sequences: 2, tokens: 512, longest: 512 });
  assertEquals(shapeOf(9, 512, wide, 2 ** 30, 2), { sequences: 2, tokens: 512, longest: 512 });
});
