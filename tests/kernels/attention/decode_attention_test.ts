import { rotateHeads, rotationOf, rotationTable } from "../../../model/llama/rope.ts";
import { decodeAttention, partialsLength } from "../../../kernels/attention/decode_attention.ts";
import { reduceSplits, reduceSplitsToF16 } from "../../../kernels/product/split_reduce.ts";
import { decodeAttentionOnCpu } from "./decode_attention_reference.ts";
import { inputOnCpu } from "../product/prologue_epilogue_reference.ts";
import { assertRounded, packCache, readCache, roundRows, unpackCache } from "./cache_rows.ts";
import type { AttentionShape, CacheBits } from "../../../kernels/attention/key_value_cache.ts";
import { whole } from "../../../kernels/gpu/plane.ts";
import { type Gpu, openGpu } from "../../../kernels/gpu/gpu.ts";
import { createTokenRange } from "../../../kernels/tokens/token_range.ts";
import { createRandom } from "../../../quant/random.ts";
import { assertWithin, poisonedOutput, readOutput, testGpu } from "../helpers.ts";
import { assert, assertEquals } from "../../assert.ts";
import { test } from "../../test.ts";

interface Case extends AttentionShape {
  readonly position: number;
  readonly splits: number;
  readonly withBias?: boolean;
  readonly normEpsilon?: number;
  /** Of the cache. Default: 16. */
  readonly bits?: CacheBits;
}

const CAPACITY = 96;

const ROPE = { theta: 10000 };

/** [tokens, heads, size] in the order of the cache: [heads, capacity, size]. */
function toCache(rows: Float32Array, heads: number, size: number) {
  const cache = new Float32Array(heads * CAPACITY * size).fill(NaN);
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

/** q, k and v of a token as they are used. */
function project(testCase: Case, { qkv, bias, norms }: Drawn) {
  const { heads, keyValueHeads: kv, headSize: size, position, withBias, normEpsilon } = testCase;
  const own = qkv.map((value, i) => value + (withBias ? bias[i] : 0));
  if (normEpsilon !== undefined) {
    norm(own, 0, heads, norms.subarray(0, size), normEpsilon);
    norm(own, heads * size, kv, norms.subarray(size), normEpsilon);
  }
  rotateHeads(own, 0, heads + kv, rotationOf(ROPE, size, CAPACITY), position);
  return own;
}

/** Attention of a token to those before and to its own key and value, as the cache has them, with its error. */
function attend(testCase: Case, drawn: Drawn, own: Float32Array, entry: readonly Float32Array[]) {
  const { heads, keyValueHeads: kv, headSize: size, position, withBias, normEpsilon, slidingWindow, bits } = testCase;
  const seen = (rows: Float32Array, last: Float32Array) =>
    Float32Array.from([...rows, ...last]).subarray(Math.max(0, position + 1 - (slidingWindow ?? Infinity)) * kv * size);
  const q = own.subarray(0, heads * size);
  const y = decodeAttentionOnCpu(testCase, q, seen(drawn.keys, entry[0]), seen(drawn.values, entry[1]));
  // A score of size s has an error of about headSize 2^-24 s in f32. Codes of 8 bits lie around 1.5, where what they
  // stand for is a fifth of the half that is their largest: about 8 times as much comes and goes. In f16 the new token,
  // which comes from registers, is one rounding off where a compiler leaves that out, one of position + 1 that share.
  const scale = 4 * Math.sqrt(size) * (withBias || normEpsilon !== undefined ? 4 : 1);
  const error = bits === 8 ? 8 * size * 2 ** -22 : 2 ** -11 / Math.sqrt(position + 1) + size * 2 ** -22;
  return { y, bound: y.map(() => scale * error) };
}

/**
 * Checks that of a sequence's planes, keys and values, only the new token's rows were written, and that they are what
 * was projected, rounded. Returns these rows.
 */
function takeEntry(
  testCase: Case,
  own: Float32Array,
  planes: readonly Float32Array[],
  before: readonly Float32Array[],
) {
  const { heads, keyValueHeads: kv, headSize: size, position, bits } = testCase;
  return planes.map((plane, part) => {
    const entry = new Float32Array(kv * size);
    for (let head = 0; head < kv; head++) {
      const at = (head * CAPACITY + position) * size;
      const row = plane.slice(at, at + size);
      const exact = (heads + part * kv + head) * size;
      assertRounded(row, own.subarray(exact, exact + size), bits);
      entry.set(row, head * size);
      plane.set(before[part].subarray(at, at + size), at);
    }
    assertEquals(plane, before[part], "the cache holds what it held beside the new rows");
    return entry;
  });
}

async function check(gpu: Gpu, testCase: Case) {
  const { heads, keyValueHeads: kv, headSize: size, position, splits, withBias, normEpsilon, bits } = testCase;
  const random = createRandom(position + heads + size);
  const draw = (length: number) => Float32Array.from({ length }, () => random.normal());
  const [qkv, bias, norms] = [draw((heads + 2 * kv) * size), draw((heads + 2 * kv) * size), draw(2 * size)];
  const keys = roundRows(draw(position * kv * size), size, bits);
  const values = roundRows(draw(position * kv * size), size, bits);
  const upload = (data: ArrayBufferView<ArrayBuffer>) => gpu.uploadStorage("input", data);
  const planes = packCache(toCache(keys, kv, size), toCache(values, kv, size), CAPACITY, size, bits);
  const cache = {
    capacity: CAPACITY,
    keys: whole(await upload(planes[0])),
    values: whole(await upload(planes[1])),
    ...(bits && { bits }),
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
  const output = await readOutput(gpu, partials);
  const input = { kind: "attention", partials: output, splits, headSize: size } as const;
  const actual = splits === 1 ? output : inputOnCpu(input, heads * size).y;
  const drawn = { qkv, bias, norms, keys, values };
  const own = project(testCase, drawn);
  const found = await readCache(gpu, cache, size);
  const entry = takeEntry(
    testCase,
    own,
    found,
    unpackCache(planes[0].buffer, planes[1].buffer, CAPACITY, size, bits),
  );
  assertWithin(actual, attend(testCase, drawn, own, entry), JSON.stringify(testCase));
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

test("decode_attention with keys and values in 8 bits", async () => {
  const gpu = await testGpu();
  for (const testCase of CASES) await check(gpu, { ...testCase, bits: 8 });
});

/** Sequences of different lengths, in another order than in the cache, which has one more. */
async function checkSequences(gpu: Gpu, shape: AttentionShape, splits: number, bits?: CacheBits) {
  const { heads, keyValueHeads: kv, headSize: size } = shape;
  const sequences = [{ position: 90, index: 2 }, { position: 0, index: 0 }, { position: 33, index: 3 }];
  const random = createRandom(size);
  const draw = (length: number) => Float32Array.from({ length }, () => random.normal());
  const width = (heads + 2 * kv) * size;
  const [bias, norms] = [draw(width), draw(2 * size)];
  const drawn = sequences.map(({ position }) => {
    const cached = () => roundRows(draw(position * kv * size), size, bits);
    return { qkv: draw(width), bias, norms, keys: cached(), values: cached() };
  });
  const length = kv * CAPACITY * size;
  const rowsOf = (name: "keys" | "values") => {
    const rows = new Float32Array(4 * length).fill(NaN);
    for (const [i, { index }] of sequences.entries()) rows.set(toCache(drawn[i][name], kv, size), index * length);
    return rows;
  };
  const planes = packCache(rowsOf("keys"), rowsOf("values"), CAPACITY, size, bits);
  const upload = (data: ArrayBufferView<ArrayBuffer>) => gpu.uploadStorage("input", data);
  const cache = {
    capacity: CAPACITY,
    keys: whole(await upload(planes[0])),
    values: whole(await upload(planes[1])),
    ...(bits && { bits }),
  };
  const partials = await gpu.createStorage("partials", 3 * partialsLength(shape, splits) * 4);
  const buffers = {
    qkv: await upload(Float32Array.from(drawn.flatMap(({ qkv }) => [...qkv]))),
    rotations: await upload(rotationTable(ROPE, size, CAPACITY)),
    sequence: await upload(Uint32Array.from(sequences.flatMap(({ position, index }) => [position, index]))),
    bias: await upload(bias),
    partials,
  };
  const range = await createTokenRange(gpu, 3);
  const mixed = await poisonedOutput(gpu, 3 * heads * size);
  const input = { kind: "attention", partials, splits, headSize: size } as const;
  gpu.submit([await decodeAttention(gpu, shape, splits, { ...buffers, cache }, 3)]);
  if (splits > 1) gpu.submit([await reduceSplits(gpu, range, heads * size, input, mixed)]);
  const actual = splits > 1 ? await readOutput(gpu, mixed) : await gpu.readF32(partials);
  const found = await readCache(gpu, cache, size);
  const before = unpackCache(planes[0].buffer, planes[1].buffer, CAPACITY, size, bits);
  for (const [i, { position, index }] of sequences.entries()) {
    const testCase = { ...shape, position, splits, withBias: true, ...(bits && { bits }) };
    const own = project(testCase, drawn[i]);
    const ofSequence = (plane: Float32Array) => plane.subarray(index * length, (index + 1) * length);
    const entry = takeEntry(testCase, own, found.map(ofSequence), before.map(ofSequence));
    const result = actual.subarray(i * heads * size, (i + 1) * heads * size);
    assertWithin(result, attend(testCase, drawn[i], own, entry), JSON.stringify(testCase));
  }
  assertEquals(found, before, "the sequence that doesn't take part is as it was");
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
  await checkSequences(gpu, { heads: 12, keyValueHeads: 2, headSize: 96 }, 3, 8);
  await checkSequences(gpu, { heads: 4, keyValueHeads: 2, headSize: 24 }, 3, 8);
});

test("decode_attention without subgroups", async () => {
  const gpu = await openGpu({ withoutSubgroups: true });
  for (const testCase of CASES.slice(1, 6)) await check(gpu, testCase);
  await check(gpu, { ...CASES[4], bits: 8 });
  gpu.close();
});

/** Attention of random numbers, combined by the next kernel, where a key of the first key head is not a number. */
async function attendWithNanKey(gpu: Gpu, testCase: Case, nanAt: number): Promise<Float16Array> {
  const { heads, keyValueHeads: kv, headSize: size, position, splits, bits } = testCase;
  const random = createRandom(nanAt);
  const draw = (length: number) => Float32Array.from({ length }, () => random.normal());
  const keys = toCache(draw(position * kv * size), kv, size);
  keys[nanAt * size + 5] = NaN;
  const upload = (data: ArrayBufferView<ArrayBuffer>) => gpu.uploadStorage("input", data);
  const planes = packCache(keys, toCache(draw(position * kv * size), kv, size), CAPACITY, size, bits);
  const cache = {
    capacity: CAPACITY,
    keys: whole(await upload(planes[0])),
    values: whole(await upload(planes[1])),
    ...(bits && { bits }),
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
  const cases: Case[] = [
    { heads: 2, keyValueHeads: 2, headSize: 64, position: 90, splits: 1 },
    { heads: 2, keyValueHeads: 2, headSize: 128, position: 50, splits: 8 },
    { heads: 12, keyValueHeads: 2, headSize: 96, position: 95, splits: 3 },
    { heads: 2, keyValueHeads: 2, headSize: 64, position: 90, splits: 3, slidingWindow: 40 },
    { heads: 2, keyValueHeads: 2, headSize: 64, position: 90, splits: 3, slidingWindow: 40, bits: 8 },
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
