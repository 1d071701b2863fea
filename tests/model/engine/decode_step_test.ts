import type { Quantizer } from "../../../quant/quantize.ts";
import { OutOfMemoryError } from "../../../kernels/gpu/device_errors.ts";
import { type Gpu, openGpu } from "../../../kernels/gpu/gpu.ts";
import { readModel } from "../../../model/files/checkpoint.ts";
import { type EngineWeights, uploadWeights } from "../../../model/engine/engine_weights.ts";
import { forward, logitsOf } from "../../../model/llama/forward.ts";
import { type LinearKind, STAGES } from "../../../model/llama/layer.ts";
import type { Model } from "../../../model/llama/llama.ts";
import type { MatMul } from "../../../model/llama/matmul.ts";
import { matmulPlain } from "../llama/matmul_plain.ts";
import { openDirectory } from "../../../model/files/open_directory.ts";
import { openPacked } from "../../../model/files/open_packed.ts";
import type { RefineEvery } from "../../../quant/format.ts";
import { twobitQuantizer } from "../../../quant/recipe.ts";
import type { PackedMatrix } from "../../../kernels/matrix/packed_matrix.ts";
import { createSession, type Session } from "../../../model/engine/session.ts";
import { checkpointSource, type WeightSource } from "../../../model/engine/weight_source.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { assertAsNear, furthest, jitter, roundInputs } from "../../kernels/as_near.ts";
import { assertFreedWhenFull, limitBindings, testGpu } from "../../kernels/helpers.ts";
import { inDirectory } from "../../temporary.ts";
import { fixture, LOGIT_TOLERANCE, quantizeFixture } from "../engine_helpers.ts";

/** Operations of layers that don't run whole. */
const SINGLE = ["qkv", "attention", "o", "gate+up", "down"];

const TOKENS = Uint32Array.from({ length: 60 }, (_, i) => (i * 29 + 5) % 96);

/** The fixtures' most likely tokens are all the same. */
const DRAWN = { temperature: 1.5, topP: 1, topK: 0, seed: 3 };

/** Where a decode step is compared; its token is the last of a text that is otherwise prefilled. */
const POSITIONS = [0, 1, 23, 24, 40, 59];

/** Logits of the CPU reference at each position. */
function logitsOnCpu(model: Model): (position: number) => Float32Array {
  const { vocabulary } = model.config;
  const { hidden } = forward(model, [{ tokens: TOKENS }], matmulPlain);
  const logits = logitsOf(model, hidden, matmulPlain);
  return (position) => logits.subarray(position * vocabulary, (position + 1) * vocabulary);
}

/** Has a decode step, not the prompt's pass, take in the token at a position. */
async function decodeAt(session: Session, position: number): Promise<Float32Array> {
  session.truncate(0, 0);
  await session.prefill([TOKENS.slice(0, position + 1)]);
  session.truncate(0, position);
  await session.decode([0], 1);
  return await session.logits();
}

async function assertDecodes(
  gpu: Gpu,
  weights: EngineWeights,
  model: Model,
  kinds: readonly string[],
  reason?: string,
) {
  using session = await createSession(gpu, weights, 100);
  const expected = logitsOnCpu(model);
  assertEquals([...new Set(session.step.layers(0).map(({ kind }) => kind))], kinds);
  assertEquals(session.step.whyNotWhole, reason);
  for (const position of POSITIONS) {
    const difference = furthest(await decodeAt(session, position), expected(position));
    assert(difference < LOGIT_TOLERANCE, `position ${position} differs by ${difference}`);
  }
}

const uniform = () => twobitQuantizer({ outliers: { share: 0.01, groups: "both", rule: "error" } });

/** A fixture, how it is packed, what is then changed, and the operations that its layers become. */
interface Case {
  readonly name: string;
  readonly what: string;
  readonly kinds: readonly string[];
  /** Why they don't run whole, where they don't. */
  readonly reason?: string;
  readonly quantizerOf?: (kind: LinearKind) => Quantizer;
  readonly layers?: number;
}

/** Of the stages of a layer. */
const DENSITIES: readonly RefineEvery[] = [2, "none", 16, 1];

const NOT_ALIKE = "linear layers of one input aren't packed alike, must be";

const CASES: readonly Case[] = [
  { name: "qwen3_wide_heads", what: "norms of heads", kinds: ["layers"] },
  { name: "qwen2_tied", what: "biases of q, k and v", kinds: ["layers"] },
  { name: "mistral_window", what: "a sliding window", kinds: ["layers"] },
  { name: "qwen3_wide_heads", what: "nine layers", kinds: ["layers"], layers: 9 },
  {
    name: "qwen2_tied",
    what: "one layer",
    kinds: SINGLE,
    layers: 1,
    reason: "the model has 1 layer, must have 2 or more",
  },
  { name: "llama3_scaled_bias", what: "a bias of o", kinds: SINGLE, reason: "o has a bias, must have none" },
  {
    name: "llama_tied_gqa",
    what: "heads of 8",
    kinds: SINGLE,
    reason: "a vector or head has 8 channels, must have a multiple of 16",
  },
  {
    name: "mistral_window",
    what: "another density in q and up",
    kinds: SINGLE,
    reason: NOT_ALIKE,
    quantizerOf: (kind) => twobitQuantizer({ refineEvery: kind === "q_proj" ? "none" : kind === "up_proj" ? 2 : 8 }),
  },
  {
    name: "qwen2_tied",
    what: "another density in all",
    kinds: ["layers"],
    quantizerOf: () => twobitQuantizer({ refineEvery: 4 }),
  },
  {
    name: "mistral_window",
    what: "a density for each stage",
    kinds: ["layers"],
    quantizerOf: (kind) =>
      twobitQuantizer({ refineEvery: DENSITIES[STAGES.findIndex((s) => s.linears.includes(kind))] }),
  },
];

/** Takes texts in by decode steps alone, a token of each at a time; all are as long. */
async function decodeTexts(session: Session, texts: readonly Uint32Array[]): Promise<Float32Array> {
  const all = [...texts.keys()];
  for (let position = 0; position < texts[0].length; position++) {
    for (const i of all) session.setNext(i, texts[i][position]);
    await session.decode(all, 1);
  }
  return await session.logits();
}

for (
  const [how, name, sequences] of [["in whole layers", "qwen3_wide_heads", 1], [
    "operation by operation",
    "llama_tied_gqa",
    1,
  ], ["several together", "qwen2_tied", 3]] as const
) {
  Deno.test(`activations of 8 bits, ${how}: logits are those of the CPU reference with inputs rounded so`, () =>
    inDirectory(async (directory) => {
      await quantizeFixture(name, `${directory}/q.safetensors`, uniform);
      using packed = await openPacked(`${directory}/q.safetensors`);
      const gpu = await testGpu();
      const model = await readModel(packed);
      const { vocabulary, hidden: width } = model.config;
      const texts = Array.from({ length: sequences }, (_, i) => TOKENS.slice(i, i + 24));
      using weights = await uploadWeights(gpu, checkpointSource(packed));
      using session = await createSession(gpu, weights, 24, sequences, { activationBits: 8 });
      const actual = await decodeTexts(session, texts);
      const logitsBy = (text: Uint32Array, matmul: MatMul) =>
        logitsOf(model, forward(model, [{ tokens: text }], matmul).hidden.subarray(-width), matmulPlain);
      const rounded = roundInputs(model.layers);
      for (const [i, text] of texts.entries()) {
        const jittered = [1, 2, 3].map((seed) => logitsBy(text, jitter(seed, rounded)));
        const own = actual.subarray(i * vocabulary, (i + 1) * vocabulary);
        assertAsNear(own, logitsBy(text, rounded), jittered, `logits of sequence ${i}`);
      }
    }));
}

for (const [how, name] of [["in whole layers", "qwen3_wide_heads"], ["operation by operation", "llama_tied_gqa"]]) {
  Deno.test(`keys and values of 8 bits, ${how}: logits after a prompt and steps are near those of the CPU reference`, async () => {
    using checkpoint = await openDirectory(fixture(name).pathname);
    const gpu = await testGpu();
    const model = await readModel(checkpoint);
    const text = TOKENS.slice(0, 24);
    using weights = await uploadWeights(gpu, checkpointSource(checkpoint));
    using session = await createSession(gpu, weights, 24, 1, { cacheBits: 8 });
    await session.prefill([text.slice(0, 16)]);
    const actual = await decodeTexts(session, [text.slice(16)]);
    const logitsBy = (matmul: MatMul) =>
      logitsOf(model, forward(model, [{ tokens: text }], matmul).hidden.subarray(-model.config.hidden), matmulPlain);
    const jittered = [1, 2, 3].map((seed) => logitsBy(jitter(seed, matmulPlain, 8)));
    assertAsNear(actual, logitsBy(matmulPlain), jittered, "logits");
  });
}

Deno.test("activations of 8 bits are refused where no weights are packed", async () => {
  using checkpoint = await openDirectory(fixture("qwen2_tied").pathname);
  const gpu = await testGpu();
  using weights = await uploadWeights(gpu, checkpointSource(checkpoint));
  const message = "activations of 8 bits are for packed weights, the model's are f16: must be 16";
  await assertRejects(() => createSession(gpu, weights, 24, 1, { activationBits: 8 }), RangeError, message);
});

/** So many layers, those of the source over and over. */
function withLayers(source: WeightSource, model: Model, layers: number): { source: WeightSource; model: Model } {
  const config = { ...source.config, layers };
  const own = (layer: number) => layer % source.config.layers;
  return {
    source: {
      ...source,
      config,
      linear: (layer, kind) => source.linear(own(layer), kind),
      vector: (name, length) =>
        source.vector(name.replace(/layers\.(\d+)/, (_all, layer) => `layers.${own(Number(layer))}`), length),
    },
    model: { ...model, config, layers: Array.from({ length: layers }, (_, i) => model.layers[own(i)]) },
  };
}

for (const { name, what, kinds, reason, quantizerOf = uniform, layers } of CASES) {
  const how = kinds === SINGLE ? "operation by operation" : "in whole layers";
  Deno.test(`${name}, packed, with ${what}: decodes ${how} to the CPU reference's logits`, () =>
    inDirectory(async (directory) => {
      await quantizeFixture(name, `${directory}/q.safetensors`, quantizerOf);
      using packed = await openPacked(`${directory}/q.safetensors`);
      const gpu = await testGpu();
      const whole = { source: checkpointSource(packed), model: await readModel(packed) };
      const { source, model } = layers ? withLayers(whole.source, whole.model, layers) : whole;
      const weights = await uploadWeights(gpu, source);
      await assertDecodes(gpu, weights, model, kinds, reason);
      weights[Symbol.dispose]();
    }));
}

Deno.test("qwen2_tied in f16: decodes in whole layers to the CPU reference's logits", async () => {
  using checkpoint = await openDirectory(fixture("qwen2_tied").pathname);
  const gpu = await testGpu();
  const weights = await uploadWeights(gpu, checkpointSource(checkpoint));
  await assertDecodes(gpu, weights, await readModel(checkpoint), ["layers"]);
  weights[Symbol.dispose]();
});

/** The weights of a packed fixture of nine layers. */
function withNineLayers(use: (gpu: Gpu, source: WeightSource, model: Model) => Promise<void>): Promise<void> {
  return inDirectory(async (directory) => {
    await quantizeFixture("qwen3_wide_heads", `${directory}/q.safetensors`, uniform);
    using packed = await openPacked(`${directory}/q.safetensors`);
    const { source, model } = withLayers(checkpointSource(packed), await readModel(packed), 9);
    await use(await testGpu(), source, model);
  });
}

Deno.test("whole layers: what is timed one by one are the operations of each layer", () =>
  withNineLayers(async (gpu, source) => {
    const weights = await uploadWeights(gpu, source);
    {
      using session = await createSession(gpu, weights, 100);
      const operations = await session.step.operations(30);
      assertEquals(operations.map(({ kind }) => kind), Array(9).fill(SINGLE).flat());
    }
    weights[Symbol.dispose]();
  }));

Deno.test("whole layers: any one of several sequences decodes what it would alone, and the others stay as they are", () =>
  withNineLayers(async (gpu, source) => {
    using weights = await uploadWeights(gpu, source);
    const prompts = [17, 60, 33].map((length) => TOKENS.slice(0, length));
    const alone = [];
    for (const prompt of prompts) {
      using session = await createSession(gpu, weights, 100);
      const first = await session.prefill([prompt], [DRAWN]);
      const [rest] = await session.decode([0], 6, [DRAWN]);
      alone.push([...first, ...rest]);
    }
    using session = await createSession(gpu, weights, 100, 3);
    const chosen = Array.from(await session.prefill(prompts, [DRAWN, DRAWN, DRAWN]), (token) => [token]);
    for (const [sequence, count] of [[2, 2], [0, 3], [2, 4], [1, 6], [0, 3]]) {
      const [tokens] = await session.decode([sequence], count, [DRAWN]);
      chosen[sequence].push(...tokens);
    }
    assertEquals(chosen, alone);
    assertEquals(session.lengths, prompts.map(({ length }) => length + 6));
  }));

Deno.test("whole layers whose caches don't share buffers as their planes do run in shorter runs, to the same logits", () =>
  withNineLayers(async (gpu, source, model) => {
    const weights = await uploadWeights(gpu, source);
    const { keyValueHeads, headSize } = source.config;
    const cacheBytes = keyValueHeads * 256 * headSize * 2;
    const dispatches: number[] = [];
    // Planes are shared by all layers; caches by 9, 3, 3, 2 or 1.
    for (const together of [9, 4, 3, 2, 1]) {
      const lift = limitBindings(gpu, together * cacheBytes);
      try {
        await assertDecodes(gpu, weights, model, ["layers"]);
        using session = await createSession(gpu, weights, 100);
        dispatches.push(session.step.layers(0)[0].dispatches.length);
      } finally {
        lift();
      }
    }
    assertEquals(dispatches, [1, 3, 3, 5, 9]);
    weights[Symbol.dispose]();
  }));

Deno.test("whole layers whose planes can't all be bound share them by fours, by twos or each its own, to the same logits", () =>
  withNineLayers(async (gpu, source, model) => {
    const whole = await uploadWeights(gpu, source);
    const [{ base, outliers }] = (whole.layers[0].linears.qkv[0] as PackedMatrix).slabs;
    const nineLayers = Math.max(base.buffer.size, outliers.buffer.size);
    whole[Symbol.dispose]();
    const dispatches: number[] = [];
    for (const together of [9, 4, 2, 1]) {
      const lift = limitBindings(gpu, together * nineLayers / 9);
      const weights = await uploadWeights(gpu, source).finally(lift);
      await assertDecodes(gpu, weights, model, ["layers"]);
      using session = await createSession(gpu, weights, 100);
      dispatches.push(session.step.layers(0)[0].dispatches.length);
      weights[Symbol.dispose]();
    }
    assertEquals(dispatches, [1, 3, 5, 9]);
  }));

Deno.test("whole layers: a session that finds no memory on the way frees what it has made", () =>
  withNineLayers(async (gpu, source) => {
    const weights = await uploadWeights(gpu, source);
    await assertFreedWhenFull(
      gpu,
      () => createSession(gpu, weights, 100),
      (session) => {
        assertEquals(session.step.layers(0)[0].kind, "layers");
        session[Symbol.dispose]();
      },
    );
    weights[Symbol.dispose]();
  }));

/** Has a workgroup give up in a step that comes after so many others; returns what that made of a call. */
async function withFault<T>(gpu: Gpu, { step }: Session, after: number, call: () => Promise<T>) {
  const { submit } = gpu;
  const { relay } = step;
  assert(relay);
  const [{ dispatches: [firstLayers] }] = step.layers(0);
  let steps = 0;
  gpu.submit = (dispatches) => {
    for (const dispatch of dispatches) {
      // As a workgroup leaves it that gave up, at the start of a step.
      if (dispatch === firstLayers && steps++ === after) gpu.write(relay, Uint32Array.of(1));
      submit.call(gpu, [dispatch]);
    }
  };
  try {
    return await call();
  } finally {
    Object.assign(gpu, { submit });
  }
}

for (const after of [0, 3]) {
  const when = after === 0 ? "at the first token of a call" : "at its fourth token";
  Deno.test(`whole layers: where a workgroup waited in vain ${when}, operations go on to the same text`, () =>
    withNineLayers(async (_, source) => {
      // Not the one that tests share: nobody relies on this one afterwards.
      using gpu = await openGpu();
      using weights = await uploadWeights(gpu, source);
      using session = await createSession(gpu, weights, 100);
      await session.prefill([TOKENS]);
      const [expected] = await session.decode([0], 12, [DRAWN]);
      assert(new Set(expected.slice(4, 9)).size === 5, "different tokens, one of which can't pass for another");
      session.truncate(0, TOKENS.length);
      assertEquals(await session.decode([0], 4, [DRAWN]), [expected.slice(0, 4)]);
      assertEquals(session.step.whyNotWhole, undefined);
      const result = await withFault(gpu, session, after, () => session.decode([0], 5, [DRAWN]));
      assertEquals(result, [expected.slice(4, 9)]);
      assertEquals(session.step.whyNotWhole, "workgroups waited for each other in vain before");
      assertEquals([...new Set(session.step.layers(0).map(({ kind }) => kind))], SINGLE);
      assertEquals(await session.decode([0], 3, [DRAWN]), [expected.slice(9)], "the next call");
      assertEquals(session.lengths, [TOKENS.length + 12]);
      using later = await createSession(gpu, weights, 100);
      assertEquals(later.step.whyNotWhole, "workgroups waited for each other in vain before");
    }));
}

Deno.test("whole layers: where operations find no memory after a workgroup waited in vain, a later call goes on", () =>
  withNineLayers(async (_, source) => {
    using gpu = await openGpu();
    using weights = await uploadWeights(gpu, source);
    using session = await createSession(gpu, weights, 100);
    await session.prefill([TOKENS]);
    const [expected] = await session.decode([0], 8, [DRAWN]);
    session.truncate(0, TOKENS.length);
    const { createStorage } = gpu;
    await withFault(gpu, session, 3, () => {
      gpu.createStorage = (label, sizeBytes) =>
        Promise.reject(new OutOfMemoryError(`no room for ${label}`, sizeBytes, gpu.heldBytes));
      return assertRejects(() => session.decode([0], 8, [DRAWN]), OutOfMemoryError);
    }).finally(() => Object.assign(gpu, { createStorage }));
    // Three tokens were taken in well; the third chosen is known and comes next.
    assertEquals(session.lengths, [TOKENS.length + 3]);
    assertEquals(await session.decode([0], 5, [DRAWN]), [expected.slice(3)]);
  }));
