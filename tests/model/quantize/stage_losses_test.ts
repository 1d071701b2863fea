import { type BufferScope, createBufferScope } from "../../../kernels/gpu/buffer_scope.ts";
import { OutOfMemoryError } from "../../../kernels/gpu/device_errors.ts";
import type { Gpu } from "../../../kernels/gpu/gpu.ts";
import { toF16Matrix } from "../../../kernels/matrix/elementwise.ts";
import { uploadPackedMatrix } from "../../../kernels/matrix/packed_matrix.ts";
import { buffersOf, destroyMatrices, placeRows } from "../../../kernels/matrix/slabs.ts";
import { createSquareMatrix, readSquareMatrix, type SquareMatrix } from "../../../kernels/matrix/square_matrix.ts";
import type { WeightMatrix } from "../../../kernels/product/weight_format.ts";
import { uploadWeights } from "../../../model/engine/engine_weights.ts";
import { checkpointSource } from "../../../model/engine/weight_source.ts";
import { scoreWindow } from "../../../model/evaluate/score.ts";
import { type Checkpoint, readModel } from "../../../model/files/checkpoint.ts";
import { openPacked } from "../../../model/files/open_packed.ts";
import type { ModelConfig } from "../../../model/llama/config.ts";
import { LINEAR_KINDS, type LinearKind, linearShape, STAGES } from "../../../model/llama/layer.ts";
import type { Layer, Model } from "../../../model/llama/llama.ts";
import { createMatmulSimd } from "../../../model/llama/matmul_simd.ts";
import { openModel } from "../../../model/load.ts";
import { asStageDensities, chooseDensities, type StageDensities } from "../../../model/quantize/choose_densities.ts";
import { createDeviceCalibrator, type DeviceCalibrator } from "../../../model/quantize/device_calibrator.ts";
import { uploadVectors } from "../../../model/quantize/device_stream.ts";
import { createLossMeter } from "../../../model/quantize/loss_meter.ts";
import { decodeLayer } from "../../../model/quantize/quantize_layers.ts";
import type { QuantizingDevice, StageLosses } from "../../../model/quantize/quantizing_device.ts";
import { quantizeModel } from "../../../model/quantize_file.ts";
import type { QuantizeOptions } from "../../../model/quantize_options.ts";
import type { RefineEvery } from "../../../quant/format.ts";
import type { StoredTensor } from "../../../quant/quantize.ts";
import { createRandom } from "../../../quant/random.ts";
import { BUDGET_BITS, SETTINGS, twobitQuantizer } from "../../../quant/recipe.ts";
import { quantizeTwobit } from "../../../quant/twobit.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { testGpu } from "../../kernels/helpers.ts";
import { inDirectory } from "../../temporary.ts";

const windowsOf = (lengths: readonly number[]) =>
  lengths.map((length, i) => {
    const random = createRandom(i);
    return Uint32Array.from({ length }, () => random.integer(2000));
  });

const WINDOWS = windowsOf([24, 17, 24]);

/** Matrices of a stage without feedback, on the host and side by side on the device. */
async function quantizeStage(gpu: Gpu, { config, layers }: Model, layer: number, stage: number) {
  const { linears } = STAGES[stage];
  const rows = linears.reduce((sum, kind) => sum + linearShape(config, kind)[0], 0);
  const stored = new Map<LinearKind, StoredTensor>();
  const matrices = [];
  let firstRow = 0;
  for (const kind of linears) {
    const { weights, rows: own, channels } = layers[layer].linears[kind];
    const tensor = quantizeTwobit(weights, own, channels, SETTINGS);
    stored.set(kind, { kind: "twobit", tensor });
    matrices.push(placeRows(await uploadPackedMatrix(gpu, tensor), firstRow, rows));
    firstRow += own;
  }
  return { stored, matrices };
}

/** Hessians of a layer's stages as the calibrator of the quantizer sums them. */
async function sumOnDevice(gpu: Gpu, scope: BufferScope, text: DeviceCalibrator, layer: Layer, config: ModelConfig) {
  const matrices = new Map<LinearKind, WeightMatrix>();
  for (const kind of LINEAR_KINDS) {
    const weights = layer.linears[kind].weights as Float32Array<ArrayBuffer>;
    const matrix = await toF16Matrix(gpu, linearShape(config, kind), weights);
    buffersOf(matrix).forEach(scope.own);
    matrices.set(kind, matrix);
  }
  const pair = { quantized: { vectors: await uploadVectors(scope, layer), matrices } };
  const sums: Float32Array[] = [];
  for (const stage of STAGES.keys()) {
    sums.push(await readSquareMatrix(gpu, (await text.sumStage(pair, stage, scope, () => {})).gram));
    await text.pass(pair, stage);
  }
  return sums;
}

function assertNear(actual: Float32Array, wanted: Float32Array, what: string) {
  const norm = (values: Float32Array) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  const distance = norm(actual.map((value, i) => value - wanted[i]));
  // The same kernels in the same order but for the joining of q, k and v.
  assert(distance <= 2 ** -10 * norm(wanted), `${what}: differs by ${distance}, must be ${norm(wanted)}`);
}

Deno.test("createLossMeter: the Hessians of the calibrator, and KL of a stage's matrices as the CPU reference has it", async () => {
  const gpu = await testGpu();
  const matmul = await createMatmulSimd();
  using checkpoint = await openModel("tiny");
  const model = await readModel(checkpoint);
  const { config } = model;
  using weights = await uploadWeights(gpu, checkpointSource(checkpoint));
  using scope = createBufferScope(gpu);
  // Three of four windows are compared, the first ones, of which two go side by side; so do three of the whole text.
  const windows = windowsOf([17, 64, 64, 64]);
  const meter = await createLossMeter(gpu, scope, weights, { windows, lossWindows: 3 });
  const calibration = { embedding: model.embedding, windows, correctTarget: false };
  const text = await createDeviceCalibrator(gpu, scope, config, calibration);
  // The reference scores what follows; the last token of a window predicts too.
  const compared = windows.slice(0, 3).map((window) => Uint32Array.of(...window, 0));
  const references = compared.map((tokens) => {
    const keep = new Float32Array((tokens.length - 1) * config.vocabulary);
    scoreWindow(model, tokens, matmul, { keep });
    return keep;
  });
  for (const [index, stages] of [[3], [0, 1, 2]].entries()) {
    const layer = model.layers[index];
    const grams: SquareMatrix[] = [];
    for (const { linears: [kind] } of STAGES) {
      grams.push(await createSquareMatrix(gpu, scope, "hessian", linearShape(config, kind)[1]));
    }
    await meter.advance(grams);
    const sums = await sumOnDevice(gpu, scope, text, layer, config);
    for (const [stage, gram] of grams.entries()) {
      assertNear(await readSquareMatrix(gpu, gram), sums[stage], `layer ${index}, stage ${stage}`);
    }
    for (const stage of stages) {
      const { stored, matrices } = await quantizeStage(gpu, model, index, stage);
      const layers = model.layers.map((own, i) => i === index ? decodeLayer(own, stored) : own);
      const divergences = compared.flatMap((tokens, i) => [
        ...scoreWindow({ ...model, layers }, tokens, matmul, { reference: references[i] }).divergence!,
      ]);
      const expected = divergences.reduce((sum, value) => sum + value, 0) / divergences.length;
      const actual = await meter.lossOf(stage, matrices);
      // Inputs of products are f16 there, of both models; a hundredth is more than what quantizing ranks by.
      const what = `layer ${index}, stage ${stage}: KL is ${actual}, must be ${expected}`;
      assert(Math.abs(actual - expected) <= 0.01 * expected, what);
      destroyMatrices(gpu, ...matrices);
    }
  }
});

Deno.test("quantizeModel by kl: densities within the budget in metadata and report, kept by a resumed run", () =>
  inDirectory(async (directory) => {
    const tokens = Array.from({ length: 2 }, (_, i) => WINDOWS[i]);
    const options: QuantizeOptions = {
      device: "gpu",
      densities: "kl",
      method: "feedback",
      exclude: /layers\.[2-4]|mlp/,
      calibration: { tokens },
    };
    const [whole, path] = [`${directory}/whole`, `${directory}/q`];
    const reports = new Map<string, RefineEvery>();
    let chosen: StageDensities | string | undefined;
    const { bitsPerWeight } = await quantizeModel("tiny", whole, {
      ...options,
      onDensities: (densities) => chosen = densities,
      onMatrix: ({ name, refineEvery }) => reports.set(name, refineEvery),
    });
    assert(typeof chosen === "object", `densities are measured: ${chosen}`);
    using packed = await openPacked(whole);
    const { densities, refine, quantizer } = JSON.parse(packed.file.metadata.settings);
    assertEquals([densities, refine, quantizer.refineEvery], ["kl", chosen, undefined]);
    for (const [name, { refineEvery }] of packed.packed) {
      const [, layer, kind] = name.match(/layers\.(\d+)\.self_attn\.(.*)/)!;
      assertEquals(refineEvery, chosen[Number(layer)][kind === "o_proj" ? 1 : 0], name);
      assertEquals(reports.get(name), refineEvery);
    }
    assert(new Set(reports.values()).size > 1, `densities differ: ${JSON.stringify(chosen)}`);
    const planes = [...packed.packed.keys()];
    const packedBytes = [...packed.file.tensors.values()].filter(({ name }) =>
      planes.some((own) => name.startsWith(own))
    )
      .reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const weights = [...packed.packed.values()].reduce((sum, { rows, channels }) => sum + rows * channels, 0);
    assert(8 * packedBytes <= BUDGET_BITS * weights, `${8 * packedBytes / weights} bits a weight`);
    assert(bitsPerWeight > 2.85, "excluded matrices count as 16 bits");
    // An interrupted run says what it measured; it isn't measured again.
    const controller = new AbortController();
    const stop = () => controller.abort(new Error("enough"));
    await quantizeModel("tiny", path, { ...options, signal: controller.signal, onLayer: stop }).catch(() => {});
    const steps: string[] = [];
    const resumed: unknown[] = [];
    await quantizeModel("tiny", path, {
      ...options,
      resume: true,
      onProgress: (_, step) => steps.push(step),
      onDensities: (densities) => resumed.push(densities),
    });
    assertEquals(resumed, [chosen]);
    assertEquals(steps[0], "layer 0 was finished before");
    assert(!steps.some((step) => step.includes("loses")), steps.join(", "));
    assertEquals(await Deno.readFile(path), await Deno.readFile(whole));
  }));

Deno.test("chooseDensities: uniform, and why, without a way to measure, without room and without bits", async () => {
  using checkpoint = await openModel("tiny");
  const quantizerOf = (refineEvery: RefineEvery) => twobitQuantizer({ refineEvery });
  const plan = { windows: WINDOWS, isQuantized: () => true, quantizerOf, isAsked: true };
  const device = (measureLosses?: QuantizingDevice["measureLosses"]) => ({ measureLosses }) as QuantizingDevice;
  assertEquals(await chooseDensities(device(), checkpoint, plan), "what layers lose is measured on a GPU alone");
  const full = device(() => Promise.reject(new OutOfMemoryError("no room", 2, 1)));
  assertEquals(await chooseDensities(full, checkpoint, plan), "no room");
  // Where nobody asked for it, nothing that happens while measuring ends the run.
  const broken = device(() => Promise.reject(new RangeError("beyond f16")));
  await assertRejects(() => chooseDensities(broken, checkpoint, plan), RangeError, "beyond f16");
  assertEquals(await chooseDensities(broken, checkpoint, { ...plan, isAsked: false }), "beyond f16");
  const losses: StageLosses = Array.from({ length: 5 }, () => [0.1, 0.2, undefined, 0.3]);
  const narrow = { ...checkpoint, config: { ...checkpoint.config, hidden: 8 } } as unknown as Checkpoint;
  assertEquals(
    await chooseDensities(device(() => Promise.resolve(losses)), narrow, plan),
    "even without refined groups the layers take more than 2.85 bits a weight",
  );
  const chosen = await chooseDensities(device(() => Promise.resolve(losses)), checkpoint, plan);
  assertEquals(asStageDensities(JSON.parse(JSON.stringify(chosen)), 5), chosen as StageDensities);
  // Outliers take their bits out of the same budget: here 0.08 a weight, and row starts.
  const outliers = { ...SETTINGS.outliers, share: 0.0025 };
  const fewer = await chooseDensities(device(() => Promise.resolve(losses)), checkpoint, {
    ...plan,
    quantizerOf: (refineEvery) => twobitQuantizer({ refineEvery, outliers }),
  });
  assert(typeof fewer === "object" && JSON.stringify(fewer) !== JSON.stringify(chosen), `${fewer}`);
  assertEquals(asStageDensities([[8, 8, 8, 3]], 1), undefined);
  assertEquals(asStageDensities(chosen, 4), undefined);
});
