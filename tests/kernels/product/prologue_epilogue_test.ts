import { createRandom } from "../../../quant/random.ts";
import { reduceSplitsToF16 } from "../../../kernels/product/split_reduce.ts";
import { f16Gemv } from "../../../kernels/product/f16_gemv.ts";
import { uploadF16Matrix } from "../../../kernels/matrix/f16_matrix.ts";
import { fusedGemv, type FusedGemvOptions } from "../../../kernels/product/fused_gemv.ts";
import type { BoundedProduct } from "../../../kernels/matrix/bounded_product.ts";
import { fusedSeveral } from "../../../kernels/product/few/fused_several.ts";
import { REFINE_EVERY, type RefineEvery } from "../../../quant/format.ts";
import type { Dispatch } from "../../../kernels/gpu/gpu.ts";
import { createTokenRange } from "../../../kernels/tokens/token_range.ts";
import type { Epilogue, Prologue } from "../../../kernels/product/prologue_epilogue.ts";
import { f16GemvOnCpu, fusedGemvOfValuesOnCpu } from "./gemv_reference.ts";
import { inputOnCpu, outputOnCpu, type ValuesOnCpu } from "./prologue_epilogue_reference.ts";
import { type Gpu, openGpu } from "../../../kernels/gpu/gpu.ts";
import { type PackedMatrix, uploadPackedMatrix } from "../../../kernels/matrix/packed_matrix.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import {
  assertWithin,
  exactly,
  poisonedOutput,
  randomActivations,
  randomTensor,
  readOutput,
  testGpu,
} from "../helpers.ts";
import { test } from "../../test.ts";
import { destroyMatrices } from "../../../kernels/matrix/slabs.ts";

const INPUTS = ["vector", "rms_norm", "attention"] as const;
const OUTPUTS = ["store", "add", "silu_product"] as const;
type InputKind = typeof INPUTS[number];
type OutputKind = typeof OUTPUTS[number];

interface Case {
  readonly rows: number;
  readonly channels: number;
  readonly tokens: number;
  readonly input: InputKind;
  readonly output: OutputKind;
}

const HEAD_SIZE = 32;

/** Random input of each token. */
function randomInputs({ channels, tokens, input }: Case): ValuesOnCpu[] {
  const random = createRandom(channels);
  const weight = Float32Array.from({ length: channels }, () => 1 + 0.3 * random.normal());
  return Array.from({ length: tokens }, (_, token) => {
    if (input === "attention") return randomPartials(channels, 1 + (channels / HEAD_SIZE) % 7, token);
    const x = randomActivations(channels, token + 1);
    return input === "vector" ? { kind: input, x } : { kind: input, x, weight, epsilon: 1e-2 };
  });
}

/** Partial attention with far scores, a split that is empty for one head, and a head without any split. */
function randomPartials(channels: number, splits: number, seed: number): ValuesOnCpu {
  const random = createRandom(seed);
  const heads = channels / HEAD_SIZE;
  const partials = Float32Array.from({ length: splits * (channels + 2 * heads) }, () => random.normal());
  for (let i = 0; i < splits * heads; i++) {
    const pair = splits * channels + 2 * i;
    partials[pair] *= 8;
    partials[pair + 1] = 1 + Math.abs(partials[pair + 1]);
  }
  for (let split = 0; split < splits; split++) {
    // The first head has one split at most, the last one none: what they hold counts for nothing.
    if (split > 0) partials.set([1e30, 0], splits * channels + 2 * split * heads);
    partials.set([-Infinity, 0], splits * channels + 2 * (split * heads + heads - 1));
  }
  return { kind: "attention", partials, splits, headSize: HEAD_SIZE };
}

async function upload(gpu: Gpu, inputs: readonly ValuesOnCpu[]): Promise<Prologue> {
  const first = inputs[0];
  const join = (arrays: readonly Float32Array[]) => Float32Array.from(arrays.flatMap((array) => Array.from(array)));
  const values = join(inputs.map((input) => input.kind === "attention" ? input.partials : input.x));
  const buffer = await gpu.uploadStorage("values", values);
  if (first.kind === "vector") return { kind: first.kind, x: buffer };
  if (first.kind === "attention") return { ...first, partials: buffer };
  return { ...first, x: buffer, weight: await gpu.uploadStorage("weight", Float32Array.from(first.weight)) };
}

/** Runs a product into a poisoned y, or, to add, into one of known content. */
async function runInto(
  gpu: Gpu,
  kind: OutputKind,
  length: number,
  run: (output: Epilogue) => Promise<void>,
): Promise<{ before: Float32Array; actual: Float32Array }> {
  const y = await poisonedOutput(gpu, length);
  const before = randomActivations(length, 3);
  if (kind === "add") gpu.write(y.buffer, before, y.offset);
  await run({ kind, y });
  return { before, actual: await readOutput(gpu, y) };
}

function assertTokens(
  { rows, tokens, output }: Case,
  { before, actual }: { before: Float32Array; actual: Float32Array },
  product: (token: number) => BoundedProduct,
  what: string,
) {
  const outputs = output === "silu_product" ? rows / 2 : rows;
  for (let token = 0; token < tokens; token++) {
    const own = (values: Float32Array) => values.subarray(token * outputs, (token + 1) * outputs);
    const expected = outputOnCpu(output, product(token), own(before));
    assertWithin(own(actual), expected, `token ${token} of ${what}`);
  }
}

/** Dispatches of a product by one of the kernels. */
type Launch = (matrix: PackedMatrix, input: Prologue, output: Epilogue) => Promise<Dispatch[]>;

function checkFused(gpu: Gpu, test: Case, options: FusedGemvOptions = {}) {
  const launch: Launch = (...product) => fusedGemv(gpu, ...product, { tokens: test.tokens, ...options });
  return checkPacked(gpu, test, launch, JSON.stringify({ ...test, ...options }));
}

interface Uploaded {
  readonly refineEvery?: RefineEvery;
  readonly bindingBytes?: number;
}

async function checkSeveral(gpu: Gpu, test: Case, uploaded: Uploaded = {}) {
  const range = await createTokenRange(gpu, test.tokens);
  const partials = await gpu.createStorage("partials", 1 << 20);
  const launch: Launch = async (...product) => (await fusedSeveral(gpu, ...product, { range, partials }))!;
  await checkPacked(gpu, test, launch, `several of ${JSON.stringify(test)}`, uploaded);
  gpu.destroyBuffer(range.buffer);
  gpu.destroyBuffer(partials);
}

async function checkPacked(
  gpu: Gpu,
  test: Case,
  launch: Launch,
  what: string,
  { refineEvery = 8, bindingBytes }: Uploaded = {},
) {
  const { rows, channels, tokens, output } = test;
  const tensor = randomTensor({ rows, channels, refineEvery, outlierShare: 0.01 }, rows);
  const inputs = randomInputs(test);
  const matrix = await uploadPackedMatrix(gpu, tensor, bindingBytes);
  const input = await upload(gpu, inputs);
  const length = tokens * rows / (output === "silu_product" ? 2 : 1);
  const found = await runInto(gpu, output, length, async (y) => {
    gpu.submit(await launch(matrix, input, y));
  });
  destroyMatrices(gpu, matrix);
  assertTokens(test, found, (token) => fusedGemvOfValuesOnCpu(tensor, inputOnCpu(inputs[token], channels)), what);
}

/** The f16 product: attention is combined first, other inputs are read as they are, in f32. */
async function checkF16(gpu: Gpu, test: Case) {
  const { rows, channels, tokens, output } = test;
  const random = createRandom(rows);
  const weights = Float16Array.from({ length: rows * channels }, () => random.normal() * 0.05);
  const inputs = randomInputs(test);
  const matrix = await uploadF16Matrix(gpu, weights, rows, channels);
  const combined = await gpu.createStorage("combined", tokens * channels * 2);
  const input = await upload(gpu, inputs);
  const length = tokens * rows / (output === "silu_product" ? 2 : 1);
  const found = await runInto(gpu, output, length, async (y) => {
    if (input.kind !== "attention") return gpu.submit(await f16Gemv(gpu, matrix, input, y, { tokens }));
    const combine = await reduceSplitsToF16(gpu, channels, input, combined, tokens);
    gpu.submit([combine, ...await f16Gemv(gpu, matrix, { kind: "half", x: combined }, y, { tokens })]);
  });
  destroyMatrices(gpu, matrix);
  const all = new Float16Array(await gpu.read(combined));
  const product = (token: number) => {
    const expected = inputOnCpu(inputs[token], channels);
    if (input.kind !== "attention") return f16GemvOnCpu(weights, rows, expected);
    const x = all.subarray(token * channels, (token + 1) * channels);
    checkCombined(x, expected);
    return f16GemvOnCpu(weights, rows, exactly(x));
  };
  assertTokens(test, found, product, JSON.stringify(test));
}

/** f16 rounding is half a unit in the last place, or half the least subnormal; Vulkan lets it round either way. */
function checkCombined(combined: Float16Array, { y, bound }: BoundedProduct) {
  for (const [c, expected] of y.entries()) {
    const slack = bound[c] + 2 ** -10 * Math.abs(expected) + 2 ** -24;
    assert(Math.abs(combined[c] - expected) <= slack, `channel ${c} is ${combined[c]}, must be ${expected}`);
  }
}

for (const input of INPUTS) {
  for (const output of OUTPUTS) {
    test(`fused_gemv and f16_gemv from ${input} to ${output}`, async () => {
      const gpu = await testGpu();
      for (const [rows, channels, tokens] of [[72, 1024, 1], [8, 160, 3], [1048, 320, 2]]) {
        await checkFused(gpu, { rows, channels, tokens, input, output });
        await checkF16(gpu, { rows, channels, tokens, input, output });
      }
    });
  }
}

/** Cases of several tokens at once: the last one's rows are multiplied in parts of the channels. */
const SEVERAL: readonly Case[] = [
  { rows: 72, channels: 1024, tokens: 4, input: "rms_norm", output: "silu_product" },
  { rows: 24, channels: 160, tokens: 3, input: "attention", output: "add" },
  { rows: 40, channels: 11008, tokens: 2, input: "vector", output: "store" },
  { rows: 5, channels: 7240, tokens: 3, input: "vector", output: "store" },
];

for (const refineEvery of REFINE_EVERY) {
  test(`fused_several, refined groups ${refineEvery}`, async () => {
    const gpu = await testGpu();
    for (const each of SEVERAL) await checkSeveral(gpu, each, { refineEvery });
  });
}

test("fused_several: slabs, more than four tokens, without subgroups", async () => {
  const gpu = await testGpu();
  const wide: Case = { rows: 150, channels: 1000, tokens: 6, input: "rms_norm", output: "add" };
  await checkSeveral(gpu, wide, { bindingBytes: 32 * 1024 });
  const withoutSubgroups = await openGpu({ withoutSubgroups: true });
  await checkSeveral(withoutSubgroups, { ...wide, rows: 16, output: "silu_product" });
  withoutSubgroups.close();
});

test("fused_gemv from a norm over several dispatches, synchronous, few and many workgroups", async () => {
  const gpu = await testGpu();
  const test: Case = { rows: 24, channels: 4096, tokens: 2, input: "rms_norm", output: "add" };
  await checkFused(gpu, test, { teams: 4 });
  await checkFused(gpu, test, { synchronous: true });
  for (const workgroups of [1, 1000]) await checkFused(gpu, { ...test, output: "silu_product" }, { workgroups });
});

test("modes without subgroups, and with channels that fill no group", async () => {
  const gpu = await openGpu({ withoutSubgroups: true });
  for (const output of OUTPUTS) {
    await checkFused(gpu, { rows: 40, channels: 256, tokens: 1, input: "attention", output });
    await checkF16(gpu, { rows: 40, channels: 256, tokens: 1, input: "attention", output });
    await checkF16(gpu, { rows: 40, channels: 256, tokens: 1, input: "rms_norm", output });
    // So many rows that a workgroup takes two pairs; the last workgroup's second is past the end.
    await checkF16(gpu, { rows: 8216, channels: 320, tokens: 2, input: "rms_norm", output });
    await checkFused(gpu, { rows: 16, channels: 77, tokens: 2, input: "rms_norm", output });
  }
  gpu.close();
});

test("a not-a-number in x reaches y through a norm", async () => {
  const gpu = await testGpu();
  const matrix = await uploadPackedMatrix(
    gpu,
    randomTensor({ rows: 8, channels: 128, refineEvery: 8, outlierShare: 0 }, 1),
  );
  const x = await gpu.uploadStorage("x", new Float32Array(128).fill(NaN, 3, 4));
  const y = { buffer: await gpu.createStorage("y", 32) };
  const input = { kind: "rms_norm", x, weight: x, epsilon: 1 } as const;
  gpu.submit(await fusedGemv(gpu, matrix, input, { kind: "store", y }));
  assertEquals(Array.from(await gpu.readF32(y.buffer), Number.isNaN), Array(8).fill(true));
});

test("modes that don't fit are refused", async () => {
  const gpu = await testGpu();
  const matrix = (rows: number, bytes?: number) =>
    uploadPackedMatrix(gpu, randomTensor({ rows, channels: 256, refineEvery: 8, outlierShare: 0 }, 1), bytes);
  const wide = await uploadPackedMatrix(
    gpu,
    randomTensor({ rows: 8, channels: 4608, refineEvery: 8, outlierShare: 0 }, 1),
  );
  const x = await gpu.createStorage("x", 1024);
  const y = { buffer: await gpu.createStorage("y", 4096) };
  const run = async (rows: number, input: Prologue, kind: OutputKind, bytes?: number) => {
    await fusedGemv(gpu, await matrix(rows, bytes), input, { kind, y });
  };
  const vector = { kind: "vector", x } as const;
  await assertRejects(
    () => run(12, vector, "silu_product"),
    TypeError,
    "matrix has 12 rows, must have a multiple of 8",
  );
  await assertRejects(() => run(128, vector, "silu_product", 64 * 64), TypeError, "matrix has 2 slabs, must have one");
  const product = { kind: "silu_product", y } as const;
  await assertRejects(() => fusedGemv(gpu, wide, vector, product, { teams: 1 }), RangeError, "must take one");
  const attention = { kind: "attention", partials: x, splits: 0, headSize: 32 } as const;
  await assertRejects(() => run(8, attention, "store"), RangeError, "splits is 0, must be 1 or more");
  await assertRejects(() => run(8, { ...attention, splits: 1, headSize: 24 }, "store"), RangeError, "headSize is 24");
});
