import { rotateHeads, rotationOf, rotationTable } from "../../../model/llama/rope.ts";
import { decodeAttention, partialsLength } from "../../../kernels/attention/decode_attention.ts";
import { reduceSplits, reduceSplitsToF16 } from "../../../kernels/product/split_reduce.ts";
import { decodeAttentionOnCpu } from "./decode_attention_reference.ts";
import { inputOnCpu } from "../product/prologue_epilogue_reference.ts";
import type { AttentionShape } from "../../../kernels/attention/key_value_cache.ts";
import { whole } from "../../../kernels/gpu/plane.ts";
import { type Gpu, openGpu } from "../../../kernels/gpu/gpu.ts";
import { createTokenRange, setTokenRange } from "../../../kernels/tokens/token_range.ts";
import { createRandom } from "../../../quant/random.ts";
import { assertWithin, poisonedOutput, readOutput, testGpu } from "../helpers.ts";
import { assert, assertEquals } from "../../assert.ts";
import { test } from "../../test.ts";

interface Case extends AttentionShape {
  readonly position: number;
  readonly splits: number;
  readonly withBias?: boolean;
  readonly normEpsilon?: number;
}

const CAPACITY = 96;

const ROPE = { theta: 10000 };

/** f16 [tokens, heads, size] as the cache holds it: [heads, capacity, size]. */
function toCache(rows: Float32Array, heads: number, size: number) {
  const cache = new Float16Array(heads * CAPACITY * size).fill(NaN);
  for (let i = 0; i < rows.length; i++) {
    const [token, head, c] = [Math.floor(i / (heads * size)), Math.floor(i / size) % heads, i % size];
    cache[(head * CAPACITY + token) * size + c] = rows[i];
  }
  return cache;
}

function norm(values: Float32Array, offset: number, heads: number, weight: Float32Array, epsilon: number) {
  const size = weight.length;
  for (let head = 0; head < heads; head++) {
    const row = values.subarray(offset + head * size, offset + (head + 1) * size);
    const factor = 1 / Math.sqrt(row.reduce((sum, value) => sum + value * value, 0) / size + epsilon);
    row.forEach((value, i) => row[i] = value * factor * weight[i]);
  }
}

interface Drawn {
  readonly qkv: Float32Array;
  readonly bias: Float32Array;
  readonly norms: Float32Array;
  /** Of the tokens before. */
  readonly keys: Float32Array;
  readonly values: Float32Array;
}

/** What the kernel must make of a token: q, k and v as they are used, and attention with its error. */
function attend(testCase: Case, { qkv, bias, norms, keys, values }: Drawn) {
  const { heads, keyValueHeads: kv, headSize: size, position, withBias, normEpsilon, slidingWindow } = testCase;
  const own = qkv.map((value, i) => value + (withBias ? bias[i] : 0));
  if (normEpsilon !== undefined) {
    norm(own, 0, heads, norms.subarray(0, size), normEpsilon);
    norm(own, heads * size, kv, norms.subarray(size), normEpsilon);
  }
  rotateHeads(own, 0, heads + kv, rotationOf(ROPE, size, CAPACITY), position);
  const rounded = Float32Array.from(Float16Array.from(own.subarray(heads * size)));
  const all = (rows: Float32Array, part: number) =>
    Float32Array.from([...rows, ...rounded.subarray(part * kv * size, (part + 1) * kv * size)]);
  const seen = (rows: Float32Array) =>
    rows.subarray(Math.max(0, position + 1 - (slidingWindow ?? Infinity)) * kv * size);
  const y = decodeAttentionOnCpu(testCase, own.subarray(0, heads * size), seen(all(keys, 0)), seen(all(values, 1)));
  // A score of size s has an error of about headSize 2^-24 s in f32, and one f16 rounding may fall the other way.
  const scale = 4 * Math.sqrt(size) * (withBias || normEpsilon !== undefined ? 4 : 1);
  const bound = y.map(() => scale * (2 ** -11 / Math.sqrt(position + 1) + size * 2 ** -22));
  return { own, y, bound, all };
}

async function check(gpu: Gpu, testCase: Case) {
  const { heads, keyValueHeads: kv, headSize: size, position, splits, withBias, normEpsilon } = testCase;
  const random = createRandom(position + heads + size);
  const draw = (length: number) => Float32Array.from({ length }, () => random.normal());
  const [qkv, bias, norms] = [draw((heads + 2 * kv) * size), draw((heads + 2 * kv) * size), draw(2 * size)];
  const keys = Float32Array.from(Float16Array.from(draw(position * kv * size)));
  const values = Float32Array.from(Float16Array.from(draw(position * kv * size)));
  const upload = (data: ArrayBufferView<ArrayBuffer>) => gpu.uploadStorage("input", data);
  const cache = {
    capacity: CAPACITY,
    keys: whole(await upload(toCache(keys, kv, size))),
    values: whole(await upload(toCache(values, kv, size))),
  };
  const partials = await poisonedOutput(gpu, partialsLength(testCase, splits));
  const buffers = {
    qkv: await upload(qkv),
    rotations: await upload(rotationTable(ROPE, size, CAPACITY)),
    sequence: await upload(Uint32Array.of(position)),
    ...(withBias && { bias: await upload(bias) }),
    ...(normEpsilon !== undefined && { norms: await upload(norms) }),
  };
  const headNorm = buffers.norms && { weights: buffers.norms, epsilon: normEpsilon ?? 0 };
  const given = { ...buffers, cache, partials, ...(headNorm && { headNorm }) };
  gpu.submit([await decodeAttention(gpu, testCase, splits, given)]);
  const found = await readOutput(gpu, partials);
  const joined = { kind: "attention", partials: found, splits, headSize: testCase.headSize } as const;
  const actual = splits === 1 ? found : inputOnCpu(joined, testCase.heads * testCase.headSize).y;

  const { own, y, bound, all } = attend(testCase, { qkv, bias, norms, keys, values });
  assertWithin(actual, { y, bound }, JSON.stringify(testCase));

  const expected = toCache(all(keys, 0), kv, size);
  const cached = new Float16Array(await gpu.read(cache.keys.buffer));
  const changed = cached.findIndex((value, i) => Math.abs(value - expected[i]) > 2 ** -10 * Math.abs(value));
  assertEquals(changed, -1, "the key cache holds the old keys and the new one");
  const valueCache = new Float16Array(await gpu.read(cache.values.buffer));
  assertEquals(
    valueCache.slice(position * size, (position + 1) * size),
    Float16Array.from(own.subarray((heads + kv) * size, (heads + kv + 1) * size)),
  );
  for (const buffer of [...Object.values(buffers), cache.keys.buffer, cache.values.buffer]) gpu.destroyBuffer(buffer);
}

const CASES: readonly Case[] = [
  { heads: 2, keyValueHeads: 2, headSize: 64, position: 0, splits: 1 },
  { heads: 2, keyValueHeads: 2, headSize: 64, position: 37, splits: 1 },
  { heads: 3, keyValueHeads: 3, headSize: 128, position: 95, splits: 4 },
  { heads: 4, keyValueHeads: 1, headSize: 64, position: 90, splits: 3 },
  { heads: 6, keyValueHeads: 1, headSize: 128, position: 50, splits: 2 },
  { heads: 14, keyValueHeads: 2, headSize: 32, position: 2, splits: 8 },
  { heads: 4, keyValueHeads: 2, headSize: 96, position: 33, splits: 2 },
  { heads: 2, keyValueHeads: 2, headSize: 256, position: 61, splits: 2, withBias: true },
  { heads: 4, keyValueHeads: 2, headSize: 128, position: 20, splits: 2, withBias: true },
  { heads: 4, keyValueHeads: 2, headSize: 64, position: 20, splits: 2, normEpsilon: 1e-6 },
  { heads: 2, keyValueHeads: 2, headSize: 64, position: 77, splits: 3, slidingWindow: 20 },
  { heads: 2, keyValueHeads: 2, headSize: 64, position: 5, splits: 3, slidingWindow: 20 },
];

test("decode_attention: heads, splits, biases and norms", async () => {
  const gpu = await testGpu();
  for (const testCase of CASES) await check(gpu, testCase);
});

/** Sequences of different lengths, in another order than in the cache, which has one more. */
async function checkSequences(gpu: Gpu, shape: AttentionShape, splits: number) {
  const { heads, keyValueHeads: kv, headSize: size } = shape;
  const sequences = [{ position: 90, index: 2 }, { position: 0, index: 0 }, { position: 33, index: 3 }];
  const random = createRandom(size);
  const draw = (length: number) => Float32Array.from({ length }, () => random.normal());
  const width = (heads + 2 * kv) * size;
  const [bias, norms] = [draw(width), draw(2 * size)];
  const drawn = sequences.map(({ position }) => {
    const cached = () => Float32Array.from(Float16Array.from(draw(position * kv * size)));
    return { qkv: draw(width), bias, norms, keys: cached(), values: cached() };
  });
  const planes = [0, 1].map(() => new Float16Array(4 * kv * CAPACITY * size).fill(NaN));
  for (const [i, { index }] of sequences.entries()) {
    planes[0].set(toCache(drawn[i].keys, kv, size), index * kv * CAPACITY * size);
    planes[1].set(toCache(drawn[i].values, kv, size), index * kv * CAPACITY * size);
  }
  const upload = (data: ArrayBufferView<ArrayBuffer>) => gpu.uploadStorage("input", data);
  const cache = { capacity: CAPACITY, keys: whole(await upload(planes[0])), values: whole(await upload(planes[1])) };
  const partials = await gpu.createStorage("partials", 3 * partialsLength(shape, splits) * 4);
  const buffers = {
    qkv: await upload(Float32Array.from(drawn.flatMap(({ qkv }) => [...qkv]))),
    rotations: await upload(rotationTable(ROPE, size, CAPACITY)),
    sequence: await upload(Uint32Array.from(sequences.flatMap(({ position, index }) => [position, index]))),
    bias: await upload(bias),
    partials,
  };
  const range = await createTokenRange(gpu, 5);
  setTokenRange(gpu, range, 3, 0);
  const mixed = await poisonedOutput(gpu, 3 * heads * size);
  const input = { kind: "attention", partials, splits, headSize: size } as const;
  gpu.submit([await decodeAttention(gpu, shape, splits, { ...buffers, cache }, 3)]);
  if (splits > 1) gpu.submit([await reduceSplits(gpu, range, heads * size, input, mixed)]);
  const actual = splits > 1 ? await readOutput(gpu, mixed) : await gpu.readF32(partials);
  const keys = new Float16Array(await gpu.read(cache.keys.buffer));
  for (const [i, { position, index }] of sequences.entries()) {
    const testCase = { ...shape, position, splits, withBias: true };
    const { y, bound, all } = attend(testCase, drawn[i]);
    const own = actual.subarray(i * heads * size, (i + 1) * heads * size);
    assertWithin(own, { y, bound }, JSON.stringify(testCase));
    planes[0].set(toCache(all(drawn[i].keys, 0), kv, size), index * kv * CAPACITY * size);
  }
  const wrong = keys.findIndex((value, i) =>
    Number.isNaN(value) !== Number.isNaN(planes[0][i]) || Math.abs(value - planes[0][i]) > 2 ** -10 * Math.abs(value)
  );
  assertEquals(wrong, -1, "the key cache holds the old keys and the new ones");
  for (const buffer of [...Object.values(buffers), cache.keys.buffer, cache.values.buffer, range.buffer]) {
    gpu.destroyBuffer(buffer);
  }
}

test("decode_attention and split_reduce: several sequences in one dispatch", async () => {
  const gpu = await testGpu();
  await checkSequences(gpu, { heads: 2, keyValueHeads: 2, headSize: 64 }, 1);
  await checkSequences(gpu, { heads: 12, keyValueHeads: 2, headSize: 96 }, 3);
  await checkSequences(gpu, { heads: 4, keyValueHeads: 2, headSize: 24 }, 3);
  await checkSequences(gpu, { heads: 2, keyValueHeads: 1, headSize: 8 }, 1);
});

test("decode_attention without subgroups", async () => {
  const gpu = await openGpu({ withoutSubgroups: true });
  for (const testCase of CASES.slice(1, 6)) await check(gpu, testCase);
  gpu.close();
});

/** Attention of random numbers, combined by the next kernel, where a key of the first key head is not a number. */
async function attendWithNanKey(gpu: Gpu, testCase: Case, nanAt: number): Promise<Float16Array> {
  const { heads, keyValueHeads: kv, headSize: size, position, splits } = testCase;
  const random = createRandom(nanAt);
  const draw = (length: number) => Float32Array.from({ length }, () => random.normal());
  const keys = toCache(draw(position * kv * size), kv, size);
  keys[nanAt * size + 5] = NaN;
  const upload = (data: ArrayBufferView<ArrayBuffer>) => gpu.uploadStorage("input", data);
  const cache = {
    capacity: CAPACITY,
    keys: whole(await upload(keys)),
    values: whole(await upload(toCache(draw(position * kv * size), kv, size))),
  };
  const buffers = {
    qkv: await upload(draw((heads + 2 * kv) * size)),
    rotations: await upload(rotationTable(ROPE, size, CAPACITY)),
    sequence: await upload(Uint32Array.of(position)),
    partials: await gpu.createStorage("partials", 4 * partialsLength(testCase, splits)),
  };
  const mixed = await gpu.createStorage("mixed", 2 * heads * size);
  const input = { kind: "attention", partials: buffers.partials, splits, headSize: size } as const;
  gpu.submit([await decodeAttention(gpu, testCase, splits, { ...buffers, cache })]);
  if (splits > 1) gpu.submit([await reduceSplitsToF16(gpu, heads * size, input, mixed)]);
  const result = splits > 1
    ? new Float16Array(await gpu.read(mixed))
    : Float16Array.from(await gpu.readF32(buffers.partials));
  for (const buffer of [...Object.values(buffers), cache.keys.buffer, cache.values.buffer, mixed]) {
    gpu.destroyBuffer(buffer);
  }
  return result;
}

async function checkNanKeys(gpu: Gpu) {
  const cases = [
    { heads: 2, keyValueHeads: 2, headSize: 64, position: 90, splits: 1 },
    { heads: 2, keyValueHeads: 2, headSize: 128, position: 50, splits: 8 },
    { heads: 12, keyValueHeads: 2, headSize: 96, position: 95, splits: 3 },
    { heads: 2, keyValueHeads: 2, headSize: 64, position: 90, splits: 3, slidingWindow: 40 },
  ];
  for (const testCase of cases) {
    const { position, headSize, heads, slidingWindow = Infinity } = testCase;
    const oldest = Math.max(0, position + 1 - slidingWindow);
    for (const nanAt of [oldest, oldest + 9, position - 1, ...(oldest > 0 ? [oldest - 1] : [])]) {
      const mixed = await attendWithNanKey(gpu, testCase, nanAt);
      const ofNan = nanAt < oldest ? 0 : headSize * heads / 2;
      const wrong = mixed.findIndex((value, i) => Number.isNaN(value) !== i < ofNan);
      assert(wrong < 0, `${JSON.stringify(testCase)}: with the key ${nanAt} NaN, element ${wrong} is ${mixed[wrong]}`);
    }
  }
}

test("decode_attention: a key that is not a number reaches the output of the heads that see it", async () => {
  await checkNanKeys(await testGpu());
});

test("decode_attention without subgroups: a key that is not a number reaches the output", async () => {
  const gpu = await openGpu({ withoutSubgroups: true });
  await checkNanKeys(gpu);
  gpu.close();
});
