import { createBufferScope } from "../../../kernels/gpu/buffer_scope.ts";
import { toF16Matrix } from "../../../kernels/matrix/elementwise.ts";
import type { Gpu } from "../../../kernels/gpu/gpu.ts";
import type { WeightMatrix } from "../../../kernels/product/weight_format.ts";
import { createCalibrator } from "../../../model/quantize/calibrator.ts";
import { readModel } from "../../../model/files/checkpoint.ts";
import { createDeviceCalibrator } from "../../../model/quantize/device_calibrator.ts";
import { type DeviceLayer, uploadVectors } from "../../../model/quantize/device_stream.ts";
import { LINEAR_KINDS, type LinearKind, linearShape, STAGES } from "../../../model/llama/layer.ts";
import type { Layer, Model } from "../../../model/llama/llama.ts";
import { openModel } from "../../../model/load.ts";
import { createMatmulSimd } from "../../../model/llama/matmul_simd.ts";
import { openPacked } from "../../../model/files/open_packed.ts";
import { readFittingTokenizer } from "../../../model/text/tokenizer.ts";
import { cpuDevice } from "../../../model/quantize/cpu_device.ts";
import { type PackedFilePlan, writePackedFile } from "../../../model/quantize/packed_writer.ts";
import { quantizeInMemory } from "../../../model/quantize/quantize_layers.ts";
import type { QuantizingDevice } from "../../../model/quantize/quantizing_device.ts";
import { whyNotOnDevice } from "../../../model/quantize/device_limits.ts";
import { gpuDevice } from "../../../model/quantize/gpu_device.ts";
import { measureQuantizing } from "../../../model/quantize/quantize_speed.ts";
import { configOfShape } from "../../../model/engine/random_source.ts";
import { measuresInput } from "../../../quant/quantizer.ts";
import { SETTINGS, twobitQuantizer } from "../../../quant/recipe.ts";
import { scoreWindow } from "../../../model/evaluate/score.ts";
import { loadText } from "../../../model/text/text.ts";
import { sampleWindows } from "../../../model/text/windows.ts";
import { createCpuPool } from "../../../model/workers/cpu_pool.ts";
import type { Quantizer } from "../../../quant/quantize.ts";
import type { Hessian } from "../../../quant/report.ts";
import { PAPER_LAYOUT, plainLayout, type StripLayout } from "../../../quant/baselines/strip_layout.ts";
import type { StripTensor } from "../../../quant/baselines/strip_tensor.ts";
import type { FeedbackSettings } from "../../../quant/error_feedback.ts";
import { quantizeTwobit } from "../../../quant/twobit.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { openGpu } from "../../../kernels/gpu/gpu.ts";
import { readSquareMatrix } from "../../../kernels/matrix/square_matrix.ts";
import { testGpu } from "../../kernels/helpers.ts";
import { assertSameTensor } from "../../quant/helpers.ts";
import { inDirectory } from "../../temporary.ts";

const fixture = (name: string) => new URL(`../../fixtures/${name}`, import.meta.url).pathname;

// Those of 64 tokens go side by side on the device.
const windows = [64, 64, 40, 40, 29].map((length, i) => {
  const random = createRandom(i);
  return Uint32Array.from({ length }, () => random.integer(96));
});

/** A layer whose weights are f16, as the device holds them, with q and v scaled where it stands for a quantized one. */
function prepareLayer(layer: Layer, gain = 1): Layer {
  const linears = { ...layer.linears };
  for (const kind of LINEAR_KINDS) {
    const factor = kind === "q_proj" || kind === "v_proj" ? gain : 1;
    linears[kind] = { ...linears[kind], weights: linears[kind].weights.map((w) => Math.f16round(factor * w)) };
  }
  return { ...layer, linears };
}

async function uploadLayer(gpu: Gpu, scope: ReturnType<typeof createBufferScope>, model: Model, layer: Layer) {
  const matrices = new Map<LinearKind, WeightMatrix>();
  for (const kind of LINEAR_KINDS) {
    const weights = layer.linears[kind].weights as Float32Array<ArrayBuffer>;
    const matrix = await toF16Matrix(gpu, linearShape(model.config, kind), weights);
    matrix.slabs.forEach((slab) => scope.own(slab.weights.buffer));
    matrices.set(kind, matrix);
  }
  return { vectors: await uploadVectors(scope, layer), matrices } satisfies DeviceLayer;
}

const norm = (values: ArrayLike<number>) =>
  Math.sqrt(Array.from(values).reduce((sum, value) => sum + value * value, 0));

/** Keys and values are f16 on the device and all later inputs follow from them: sums differ by 2^-11 of `size`, twice over. */
function assertSums(actual: Float32Array, wanted: ArrayLike<number>, size: number, what: string) {
  const distance = norm(actual.map((value, i) => value - wanted[i]));
  assert(
    distance <= 2 ** -10 * size,
    `${what}: differs by ${distance}, must be ${norm(wanted)} within ${2 ** -10 * size}`,
  );
}

for (
  const name of [
    "llama_tied_gqa",
    "qwen2_tied",
    "qwen3_wide_heads",
    "llama3_scaled_bias",
    "mistral_window",
    "glm_partial",
  ]
) {
  Deno.test(`device calibrator, ${name}: sums of all stages equal the CPU's`, async () => {
    const gpu = await testGpu();
    using checkpoint = await openModel(fixture(name));
    const model = await readModel(checkpoint);
    const { config, embedding } = model;
    using scope = createBufferScope(gpu);
    using pool = createCpuPool(1);
    const calibration = { embedding, windows, correctTarget: true };
    const onCpu = createCalibrator(pool, config, calibration);
    const onDevice = await createDeviceCalibrator(gpu, scope, config, calibration);
    for (const [index, layer] of model.layers.entries()) {
      const pair = { index, original: prepareLayer(layer), quantized: prepareLayer(layer, 1.5) };
      const devicePair = {
        original: await uploadLayer(gpu, scope, model, pair.original),
        quantized: await uploadLayer(gpu, scope, model, pair.quantized),
      };
      for (const stage of STAGES.keys()) {
        await onCpu.advance(pair, stage);
        const { gram, drift, lack } = await onCpu.sumStage(pair, stage);
        const sums = await onDevice.sumStage(devicePair, stage, scope, () => {});
        const what = `layer ${index}, stage ${stage}`;
        const { rows, channels, weights } = pair.original.linears[STAGES[stage].linears[0]];
        const upper = (values: ArrayLike<number>) =>
          Float32Array.from(values, (value, i) => i % channels < Math.floor(i / channels) ? 0 : value);
        assertSums(upper(await readSquareMatrix(gpu, sums.gram)), upper(gram), norm(gram), `${what}, gram`);
        assertEquals(sums.correlation !== undefined, lack !== undefined);
        if (sums.drift) assertSums(await gpu.readF32(sums.drift), drift!, norm(gram), `${what}, drift`);
        await onDevice.pass(devicePair, stage);
        if (!sums.correlation) continue;
        const correlation = Float32Array.from({ length: channels * rows }, (_, at) => {
          const [n, row] = [Math.floor(at / rows), at % rows];
          let sum = lack![row * channels + n];
          for (let k = 0; k < channels; k++) sum += weights[row * channels + k] * drift![k * channels + n];
          return sum;
        });
        assertSums(
          await gpu.readF32(sums.correlation),
          correlation,
          norm(gram) * norm(weights),
          `${what}, correlation`,
        );
      }
      await onCpu.advance(pair, STAGES.length);
    }
  });
}

const plan = (path: string, quantizer: Quantizer, changes: Partial<PackedFilePlan> = {}): PackedFilePlan => ({
  path,
  calibration: measuresInput(quantizer) ? windows : [],
  correctTarget: quantizer.correctTarget === true,
  metadata: { sourceSha256: "0".repeat(64), settings: "{}" },
  resume: false,
  quantizerOf: (layer, kind) => layer === 1 && kind === "k_proj" ? undefined : quantizer,
  ...changes,
});

Deno.test("packed file by the GPU: without a Hessian it is the CPU's byte for byte", () =>
  inDirectory(async (directory) => {
    using checkpoint = await openModel(fixture("qwen3_wide_heads"));
    using pool = createCpuPool(1);
    const search: Quantizer = { kind: "twobit", settings: SETTINGS };
    await writePackedFile(gpuDevice(await testGpu()), checkpoint, plan(`${directory}/gpu`, search));
    await writePackedFile(cpuDevice(pool), checkpoint, plan(`${directory}/cpu`, search));
    assertEquals(await Deno.readFile(`${directory}/gpu`), await Deno.readFile(`${directory}/cpu`));
  }));

Deno.test("packed file by the GPU: other picks and outliers are the CPU's, and codes but where errors tie", () =>
  inDirectory(async (directory) => {
    using checkpoint = await openModel(fixture("qwen3_wide_heads"));
    using pool = createCpuPool(1);
    const outliers = { share: 0.005, groups: "both", rule: "error" } as const;
    for (const changes of [{ outliers }, { pick: "strip" }, { pick: "random", seed: 3 }] as const) {
      const search: Quantizer = { kind: "twobit", settings: { ...SETTINGS, ...changes } };
      await writePackedFile(gpuDevice(await testGpu()), checkpoint, plan(`${directory}/gpu`, search));
      await writePackedFile(cpuDevice(pool), checkpoint, plan(`${directory}/cpu`, search));
      using onDevice = await openPacked(`${directory}/gpu`);
      using onCpu = await openPacked(`${directory}/cpu`);
      let words = 0;
      let different = 0;
      for (const name of onCpu.packed.keys()) {
        const [mine, theirs] = [await onDevice.readPacked(name), await onCpu.readPacked(name)];
        for (const plane of ["outlierStart", "outlierChannel", "tileScale"] as const) {
          assertEquals(mine[plane], theirs[plane], `${name}, ${plane}`);
        }
        words += theirs.base.length;
        different += theirs.base.reduce((sum, word, i) => sum + (word === mine.base[i] ? 0 : 1), 0);
      }
      // Measured: one or two groups of 6,000.
      assert(different <= words / 1000, `${different} of ${words} groups differ`);
    }
  }));

Deno.test("packed file by the GPU: outliers with feedback are the CPU's in the first matrix, and resume as they were", () =>
  inDirectory(async (directory) => {
    using checkpoint = await openModel(fixture("llama_tied_gqa"));
    using pool = createCpuPool(1);
    const quantizer = twobitQuantizer({ outliers: { share: 0.01, groups: "two_bit", rule: "error" } }, "feedback");
    const gpu = gpuDevice(await testGpu());
    await writePackedFile(gpu, checkpoint, plan(`${directory}/gpu`, quantizer));
    await writePackedFile(cpuDevice(pool), checkpoint, plan(`${directory}/cpu`, quantizer));
    using onDevice = await openPacked(`${directory}/gpu`);
    using onCpu = await openPacked(`${directory}/cpu`);
    const first = "model.layers.0.self_attn.q_proj";
    const [mine, theirs] = [await onDevice.readPacked(first), await onCpu.readPacked(first)];
    assert(theirs.outlierChannel.length > 0);
    assertEquals([mine.outlierStart, mine.outlierChannel], [theirs.outlierStart, theirs.outlierChannel]);
    const crash = () => {
      throw new Error("power cut");
    };
    const path = `${directory}/resumed`;
    await assertRejects(
      () => writePackedFile(gpu, checkpoint, plan(path, quantizer, { onLayer: crash })),
      Error,
      "cut",
    );
    await writePackedFile(gpu, checkpoint, plan(path, quantizer, { resume: true }));
    assertEquals(await Deno.readFile(path), await Deno.readFile(`${directory}/gpu`));
  }));

Deno.test("baselines on the GPU: the CPU's where inputs don't matter, with feedback its errors", async () => {
  using checkpoint = await openModel(fixture("llama_tied_gqa"));
  const model = await readModel(checkpoint);
  using pool = createCpuPool(2);
  const gpu = await testGpu();
  const calibration = { embedding: model.embedding, windows, correctTarget: false, keepsInputs: true };
  const quantizeBy = async (device: QuantizingDevice, quantizer: Quantizer, changes = {}) => {
    using run = await device.start(model.config, { ...calibration, ...changes });
    return await quantizeInMemory(run, model, { quantizerOf: () => quantizer });
  };
  const compare = async (quantizer: Quantizer, tolerance: number, changes = {}) => {
    const onDevice = await quantizeBy(gpuDevice(gpu, pool), quantizer, changes);
    const onCpu = await quantizeBy(cpuDevice(pool), quantizer, changes);
    for (const [index, { linears }] of model.layers.entries()) {
      for (const kind of LINEAR_KINDS) {
        const [mine, theirs] = [onDevice, onCpu].map((quantized) => {
          const { weights } = quantized.model.layers[index].linears[kind];
          return norm(weights.map((weight, i) => weight - linears[kind].weights[i]));
        });
        assert(
          Math.abs(mine / theirs - 1) <= tolerance,
          `layer ${index}, ${kind}: error is ${mine}, on the CPU ${theirs}`,
        );
      }
    }
    return [onDevice.tensors, onCpu.tensors] as const;
  };
  const strips = (
    layout: StripLayout,
    search: "minmax" | "weighted_error",
    feedback?: FeedbackSettings,
  ): Quantizer => ({
    kind: "strips",
    settings: { layout, search },
    ...(feedback && { feedback }),
  });
  const byChannels = { damping: 0.01, order: "channels" } as const;
  const [roundedHere, roundedThere] = await compare(strips(plainLayout(2, 16), "minmax"), 0);
  assertEquals(roundedHere, roundedThere);
  const [fedHere, fedThere] = await compare(strips(plainLayout(2, 16), "minmax", byChannels), 0.02);
  for (const [name, { tensor }] of fedThere) {
    const wanted = tensor as StripTensor;
    const found = fedHere.get(name)!.tensor as StripTensor;
    assertEquals([found.scales, found.zeros], [wanted.scales, wanted.zeros], name);
  }
  await compare(strips(PAPER_LAYOUT, "weighted_error", byChannels), 0.05);
  const corrected = { ...strips(PAPER_LAYOUT, "weighted_error", byChannels), correctTarget: true };
  const throughBoth = { keepsInputs: false, correctTarget: true };
  await compare(corrected, 0.1, throughBoth);
  const held = gpu.heldBytes;
  await quantizeBy(gpuDevice(gpu, pool), corrected, throughBoth);
  assertEquals(gpu.heldBytes, held);
  const alone = () => quantizeBy(gpuDevice(gpu), strips(plainLayout(2, 16), "minmax"));
  await assertRejects(alone, TypeError, "must be twobit without workers");
});

Deno.test("search: channels count by the energy of their inputs, on the CPU and on the GPU", () =>
  inDirectory(async (directory) => {
    using checkpoint = await openModel(fixture("qwen3_wide_heads"));
    const model = await readModel(checkpoint);
    using pool = createCpuPool(1);
    const search = twobitQuantizer({}, "search");
    await writePackedFile(gpuDevice(await testGpu()), checkpoint, plan(`${directory}/gpu`, search));
    await writePackedFile(cpuDevice(pool), checkpoint, plan(`${directory}/cpu`, search));
    using onDevice = await openPacked(`${directory}/gpu`);
    using onCpu = await openPacked(`${directory}/cpu`);
    // The first matrix meets the embeddings, normed: the diagonal of the sum of x xᵀ, worked here.
    const { hidden, normEpsilon } = model.config;
    const { attentionNorm, linears: { q_proj: { weights, rows, channels } } } = model.layers[0];
    const diagonal = new Float64Array(channels);
    for (const token of windows.flatMap((window) => [...window])) {
      const x = model.embedding.subarray(token * hidden, (token + 1) * hidden);
      const square = x.reduce((sum, value) => sum + value * value, 0) / hidden + normEpsilon;
      for (let i = 0; i < hidden; i++) diagonal[i] += (x[i] * attentionNorm[i]) ** 2 / square;
    }
    const channelWeights = diagonal.map((value) => (value * channels) / diagonal.reduce((a, b) => a + b));
    const expected = quantizeTwobit(weights, rows, channels, search.settings, { channelWeights });
    const plain = quantizeTwobit(weights, rows, channels, SETTINGS);
    assertSameTensor(await onCpu.readPacked("model.layers.0.self_attn.q_proj"), expected);
    assert(expected.base.some((word, i) => word !== plain.base[i]));
    // Keys and values in f16 change later inputs a little, and so some choice where errors nearly tie.
    for (const tensor of onCpu.packed.keys()) {
      const [a, b] = [await onCpu.readPacked(tensor), await onDevice.readPacked(tensor)].map(({ base }) => base);
      const same = a.reduce((sum, word, i) => sum + (word === b[i] ? 1 : 0), 0) / a.length;
      assert(same > 0.98, `${tensor}: ${same} of the words are the same`);
    }
  }));

Deno.test("packed file by the GPU: an interrupted run resumes to the same bytes, and frees what it took", () =>
  inDirectory(async (directory) => {
    const gpu = await testGpu();
    using checkpoint = await openModel(fixture("llama_tied_gqa"));
    await writePackedFile(gpuDevice(gpu), checkpoint, plan(`${directory}/whole`, twobitQuantizer()));
    const held = gpu.heldBytes;
    const path = `${directory}/resumed`;
    const crash = () => {
      throw new Error("power cut");
    };
    await assertRejects(
      () => writePackedFile(gpuDevice(gpu), checkpoint, plan(path, twobitQuantizer(), { onLayer: crash })),
      Error,
      "power cut",
    );
    await writePackedFile(gpuDevice(gpu), checkpoint, plan(path, twobitQuantizer(), { resume: true }));
    assertEquals(await Deno.readFile(path), await Deno.readFile(`${directory}/whole`));
    assertEquals(gpu.heldBytes, held);
    using packed = await openPacked(path);
    assertEquals(packed.packed.size, 13);
  }));

Deno.test("packed file by the GPU: stages come with the Hessian of their input, the first with the CPU's", () =>
  inDirectory(async (directory) => {
    using checkpoint = await openModel(fixture("llama_tied_gqa"));
    using pool = createCpuPool(1);
    const hessiansBy = async (device: QuantizingDevice) => {
      const found: (Hessian | undefined)[] = [];
      const onStage: PackedFilePlan["onStage"] = (_stored, _layer, hessian) => void found.push(hessian);
      const told = plan(`${directory}/q`, twobitQuantizer(), { onStage, tellsHessians: true });
      await writePackedFile(device, checkpoint, told);
      return found;
    };
    const onGpu = await hessiansBy(gpuDevice(await testGpu()));
    const onCpu = await hessiansBy(cpuDevice(pool));
    assertEquals(onGpu.map((hessian) => hessian?.length), onCpu.map((hessian) => hessian?.length));
    assertEquals(onGpu.length, checkpoint.config.layers * STAGES.length);
    const upper = (values: Hessian) => {
      const size = Math.sqrt(values.length);
      return Float32Array.from(values, (value, at) => at % size < Math.floor(at / size) ? 0 : value);
    };
    const [mine, theirs] = [upper(onGpu[0]!), upper(onCpu[0]!)];
    assertSums(mine, theirs, norm(theirs), "Hessian");
  }));

Deno.test("inputs of the unquantized model: measured once on the GPU, and repeated to the same planes", async () => {
  using checkpoint = await openModel(fixture("llama_tied_gqa"));
  const model = await readModel(checkpoint);
  const gpu = await testGpu();
  const device = gpuDevice(gpu);
  const quantizeOn = async (keepsInputs: boolean) => {
    const calibration = { embedding: model.embedding, windows, correctTarget: false, keepsInputs };
    using run = await device.start(model.config, calibration);
    return (await quantizeInMemory(run, model, { quantizerOf: () => twobitQuantizer({}, "feedback") })).tensors;
  };
  const first = await quantizeOn(true);
  const held = gpu.heldBytes;
  assertEquals(await quantizeOn(true), first);
  assertEquals(gpu.heldBytes, held);
  const throughQuantized = await quantizeOn(false);
  const [name] = [...first.keys()].slice(-1);
  assert(JSON.stringify(throughQuantized.get(name)) !== JSON.stringify(first.get(name)));
});

Deno.test("whyNotOnDevice: says what the device doesn't do", async () => {
  const gpu = await testGpu();
  using checkpoint = await openModel(fixture("llama_tied_gqa"));
  const { config } = checkpoint;
  const why = (quantizer: Quantizer, changes = {}) => whyNotOnDevice(gpu, { ...config, ...changes }, quantizer) ?? "";
  assertEquals(why(twobitQuantizer()), "");
  assertEquals(why({ kind: "q2_k" }), "");
  assert(why(twobitQuantizer({ pick: "range" })).includes("by range of corrected targets"));
  assertEquals(why(twobitQuantizer({ pick: "range" }, "feedback")), "");
  assert(why({ ...twobitQuantizer(), feedback: { damping: 0.1, order: "channels" } }).includes("together"));
  assertEquals(why(twobitQuantizer({}, "search")), "");
  assert(why({ ...twobitQuantizer(), settings: { ...SETTINGS, pick: "error_hessian" } }).includes("by error_hessian"));
  assertEquals(why(twobitQuantizer({ outliers: { share: 0.01, groups: "both", rule: "error" } })), "");
  const unattended = "head size is 100, must be a multiple of 8 up to 256 on the device";
  assertEquals(why(twobitQuantizer(), { headSize: 100, heads: 4 }), unattended);
  assert(why(twobitQuantizer(), { hidden: 40 }).includes("sixteens"));
  // A Hessian of 4 GiB is no obstacle, in slabs; a drift of more than any adapter binds is.
  assertEquals(why(twobitQuantizer(), { intermediate: 2 ** 15 }), "");
  assert(why(twobitQuantizer(), { hidden: 2 ** 16 }).includes("the device binds"));
});

Deno.test("measureQuantizing: beside activations the device holds less than two layers in f16", async () => {
  // Llama-2-7B's proportions at an eighth of its width.
  const shape = {
    name: "small",
    source: "",
    hidden: 512,
    intermediate: 1376,
    layers: 2,
    heads: 8,
    keyValueHeads: 8,
    headSize: 64,
    vocabulary: 96,
    tiedHead: false,
  };
  const config = configOfShape(shape, 64);
  const layerBytes = LINEAR_KINDS.reduce((sum, kind) => {
    const [rows, channels] = linearShape(config, kind);
    return sum + 2 * rows * channels;
  }, 0);
  for (const quantizer of [twobitQuantizer(), { kind: "twobit", settings: SETTINGS } as const]) {
    const gpu = await openGpu();
    const speed = await measureQuantizing(gpu, config, quantizer, { windows: 2, windowTokens: 64 });
    gpu.close();
    assert(speed.firstLayerMs > 0 && speed.layerMs > 0 && speed.hostBytes > 0);
    const { activationBytes, deviceBytes } = speed;
    // Two streams of two windows side by side: residual, kept and normed inputs, then products, keys and values in f16 of
    // both windows, and rotations. Two ranges say which tokens, for both streams.
    const textBytes = 4 * 64 * (2 * (2 * (512 + 1376) + 2 * 512) + 2 * (3 * 512 + 2 * 1376 + 512) + 64);
    assertEquals(activationBytes, quantizer.feedback ? textBytes + 2 * 16 : 0);
    // A stretch of carried errors doesn't shrink with the width: it has 1024 channels here, not 128.
    const besides = deviceBytes - activationBytes - (quantizer.feedback ? 4 * 512 * (1024 - 128) : 0);
    assert(besides > layerBytes / 4 && besides < 2 * layerBytes, `${besides} bytes, must be below ${2 * layerBytes}`);
  }
});

/** Perplexity over windows. */
async function perplexity(model: Model, scored: readonly Uint32Array[]): Promise<number> {
  const matmul = await createMatmulSimd();
  const losses = scored.flatMap((tokens) => [...scoreWindow(model, tokens, matmul).negativeLogLikelihood]);
  return Math.exp(losses.reduce((sum, loss) => sum + loss, 0) / losses.length);
}

Deno.test("quantizeInMemory: on the device the embedded model's first layer loses as much as on the CPU", async () => {
  using checkpoint = await openModel("tiny");
  const whole = await readModel(checkpoint);
  // One layer of five, so that the CPU's part of the test stays short; the text is scored by all.
  const config = { ...whole.config, layers: 1 };
  const model: Model = { ...whole, config, layers: whole.layers.slice(0, 1) };
  const completed = (layers: readonly Layer[]) => ({ ...whole, layers: [...layers, ...whole.layers.slice(1)] });
  const tokenizer = await readFittingTokenizer(checkpoint);
  const text = await loadText("calibration");
  const sampled = sampleWindows(text, tokenizer, { length: 128, count: 12 }).windows;
  const [calibration, scored] = [sampled.slice(0, 4), sampled.slice(4)];
  using pool = createCpuPool(2);
  const perplexityBy = async (device: QuantizingDevice) => {
    using run = await device.start(config, { embedding: model.embedding, windows: calibration, correctTarget: true });
    const quantized = await quantizeInMemory(run, model, { quantizerOf: () => twobitQuantizer() });
    return await perplexity(completed(quantized.model.layers), scored);
  };
  const [gpu, cpu] = [await perplexityBy(gpuDevice(await testGpu())), await perplexityBy(cpuDevice(pool))];
  // All five layers with 8 x 256 tokens, on 16 other windows: 27.59 on the GPU, 27.61 on the CPU, 22.08 unquantized; with
  // products summed in another order 27.48 on the GPU. At other densities the two differed by up to 0.6 %.
  assert(Math.abs(gpu / cpu - 1) < 0.03, `perplexity is ${gpu}, on the CPU ${cpu}`);
});
