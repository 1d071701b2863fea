import {
  type AttentionShape,
  type CacheBits,
  checkAttentionShape,
  type KeyValueCache,
} from "../../../kernels/attention/key_value_cache.ts";
import type { BoundedProduct } from "../../../kernels/matrix/bounded_product.ts";
import { prefillAttention } from "../../../kernels/attention/prefill_attention.ts";
import { createTokenRange, setTokenRange } from "../../../kernels/tokens/token_range.ts";
import { ropeCache } from "../../../kernels/attention/rope_cache.ts";
import { rotateHeads, rotationOf, rotationTable } from "../../../model/llama/rope.ts";
import { whole } from "../../../kernels/gpu/plane.ts";
import { type Gpu, openGpu } from "../../../kernels/gpu/gpu.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../../assert.ts";
import { assertWithin, poisonedOutput, randomActivations, readOutput, testGpu } from "../helpers.ts";
import { test } from "../../test.ts";
import { emulateMatrices } from "../emulate_matrices.ts";
import { packCache, unpackCache } from "./cache_rows.ts";

const EPSILON = 2 ** -24;
/** Weights below f32's range become 0. */
const UNDERFLOW = 2 ** -110;

/** Keys or values as the cache has them. */
type Rows = Float16Array | Float32Array;

/** Tokens `first` .. `first + tokens - 1` of a sequence. */
interface Part {
  readonly first: number;
  readonly tokens: number;
}

/**
 * One query and head of attention in f64, with the bound of an f32 kernel, or of one whose queries and weights are f16
 * and whose sums may be cut instead of rounded.
 */
function attendOne(
  q: Float32Array,
  keys: Rows,
  values: Rows,
  seen: readonly number[],
  asHalves: boolean,
): BoundedProduct {
  const size = q.length;
  const scores: number[] = [];
  let scoreError = 0;
  for (const p of seen) {
    let [sum, magnitude] = [0, 0];
    for (let i = 0; i < size; i++) {
      sum += q[i] * keys[p * size + i];
      magnitude += Math.abs(q[i] * keys[p * size + i]);
    }
    scores.push(sum / Math.sqrt(size));
    const half = asHalves ? 2 ** -10 + 4 * size * EPSILON : 0;
    scoreError = Math.max(scoreError, (half + (size + 6) * EPSILON) * magnitude / Math.sqrt(size));
  }
  const max = Math.max(...scores);
  const terms = scores.map((score) => Math.exp(score - max));
  const total = terms.reduce((sum, term) => sum + term, 0);
  const y = new Float64Array(size);
  const bound = new Float64Array(size);
  for (const [at, p] of seen.entries()) {
    // A weight errs by its score, by the largest score, by exp (3 + 2 |x| units in the last place) once a tile and once
    // more for each tile's shrinking; then the sums over keys.
    const tiles = Math.ceil(seen.length / 64) + 1;
    const half = asHalves ? 2 ** -10 + 4 * seen.length * EPSILON : 0;
    const weightError = 2 * scoreError + (6 + 6 * (max - scores[at])) * EPSILON + tiles * 12 * EPSILON + half;
    for (let i = 0; i < size; i++) {
      const term = terms[at] / total * values[p * size + i];
      y[i] += term;
      bound[i] += Math.abs(term) * (2 * weightError + 2 * (seen.length + 8) * EPSILON) +
        (asHalves ? EPSILON * Math.abs(values[p * size + i]) : UNDERFLOW);
    }
  }
  return { y, bound };
}

function attendOnCpu(
  shape: AttentionShape,
  part: Part,
  qkv: Float32Array,
  keys: Rows,
  values: Rows,
  asHalves: boolean,
) {
  const { heads, keyValueHeads, headSize, slidingWindow = Infinity } = shape;
  const capacity = keys.length / keyValueHeads / headSize;
  const y: number[] = [];
  const bound: number[] = [];
  for (let t = 0; t < part.tokens; t++) {
    for (let head = 0; head < heads; head++) {
      const at = (t * (heads + 2 * keyValueHeads) + head) * headSize;
      const group = Math.floor(head / (heads / keyValueHeads)) * capacity * headSize;
      const ofHead = (plane: Rows) => plane.subarray(group, group + capacity * headSize);
      const seen = Array.from({ length: part.first + t + 1 }, (_, p) => p).slice(-Math.min(slidingWindow, 1e9));
      const one = attendOne(qkv.subarray(at, at + headSize), ofHead(keys), ofHead(values), seen, asHalves);
      y.push(...one.y);
      bound.push(...one.bound);
    }
  }
  return { y: Float64Array.from(y), bound: Float64Array.from(bound) };
}

const ATTENTION_CASES: readonly [AttentionShape, Part, capacity: number][] = [
  [{ heads: 2, keyValueHeads: 2, headSize: 32 }, { first: 0, tokens: 1 }, 1],
  [{ heads: 4, keyValueHeads: 2, headSize: 40 }, { first: 0, tokens: 70 }, 80],
  [{ heads: 2, keyValueHeads: 1, headSize: 128 }, { first: 200, tokens: 33 }, 300],
  [{ heads: 3, keyValueHeads: 1, headSize: 80 }, { first: 5, tokens: 3 }, 8],
  [{ heads: 1, keyValueHeads: 1, headSize: 256 }, { first: 63, tokens: 2 }, 65],
  [{ heads: 1, keyValueHeads: 1, headSize: 200 }, { first: 10, tokens: 40 }, 50],
  [{ heads: 1, keyValueHeads: 1, headSize: 8 }, { first: 4000, tokens: 5 }, 4096],
  [{ heads: 2, keyValueHeads: 1, headSize: 32, slidingWindow: 70 }, { first: 150, tokens: 50 }, 200],
];

/** Cases that matrix units are tested with where they are emulated, which takes seconds each. */
const EMULATED_CASES: typeof ATTENTION_CASES = [
  [{ heads: 4, keyValueHeads: 2, headSize: 40 }, { first: 0, tokens: 70 }, 80],
  [{ heads: 2, keyValueHeads: 1, headSize: 32, slidingWindow: 70 }, { first: 150, tokens: 50 }, 200],
];

test("prefill_attention: shapes, parts of a sequence, grouped heads, sliding window", async () => {
  using gpu = await openGpu({ withoutSubgroups: true });
  await checkAttention(gpu, ATTENTION_CASES);
});

test("prefill_attention by matrix units: shapes, sliding window", async () => {
  const shared = await testGpu();
  if (shared.profile.matrixUnits) return await checkAttention(shared, ATTENTION_CASES);
  using gpu = await openGpu();
  emulateMatrices(gpu);
  // llvmpipe has more workgroup memory than it says.
  Object.assign(gpu, { profile: { ...gpu.profile, matrixUnits: true, workgroupBytes: 48 * 1024 } });
  await checkAttention(gpu, EMULATED_CASES);
  await checkSequences(gpu);
  await checkSequences(gpu, 40, 8);
});

async function checkAttention(gpu: Gpu, cases: typeof ATTENTION_CASES) {
  for (const [index, [shape, part, capacity]] of cases.entries()) {
    const { heads, keyValueHeads, headSize } = shape;
    const qkv = randomActivations(part.tokens * (heads + 2 * keyValueHeads) * headSize, headSize);
    const plane = (seed: number) => Float16Array.from(randomActivations(keyValueHeads * capacity * headSize, seed));
    const [keys, values] = [plane(1), plane(2)];
    // What lies beyond the sequence must not matter.
    for (let head = 0; head < keyValueHeads; head++) {
      const end = (head + 1) * capacity * headSize;
      const unused = end - (capacity - part.first - part.tokens) * headSize;
      for (const unwritten of [keys, values]) unwritten.fill(NaN, unused, end);
    }
    // The sequence alone in its cache, or after another of which nothing must be read.
    const sequence = index % 2;
    const place = (plane: Float16Array) =>
      Float16Array.from([...new Array(sequence * plane.length).fill(NaN), ...plane]);
    const cache = {
      capacity,
      keys: whole(await gpu.uploadStorage("keys", place(keys))),
      values: whole(await gpu.uploadStorage("values", place(values))),
    };
    const range = await createTokenRange(gpu, part.tokens + 40);
    setTokenRange(gpu, range, part.tokens, part.first, sequence);
    const out = await poisonedOutput(gpu, part.tokens * heads * headSize);
    gpu.submit([await prefillAttention(gpu, shape, range, { qkv: await gpu.uploadStorage("qkv", qkv), cache, out })]);
    assertWithin(
      await readOutput(gpu, out),
      attendOnCpu(shape, part, qkv, keys, values, gpu.profile.matrixUnits),
      JSON.stringify({ ...shape, ...part }),
    );
    for (const { buffer } of [cache.keys, cache.values]) gpu.destroyBuffer(buffer);
  }
}

test("sequences side by side, some of those that there is room for: each attends to itself, from its own positions", async () => {
  const gpu = await testGpu();
  await checkSequences(gpu);
  await checkSequences(gpu, 40, 8);
  await checkSequences(gpu, 8, 8);
});

async function checkSequences(gpu: Gpu, headSize = 16, bits: CacheBits = 16) {
  const shape = { heads: 4, keyValueHeads: 2, headSize };
  const [part, capacity, sequences, taken] = [{ first: 5, tokens: 70 }, 80, 4, 3];
  const width = (shape.heads + 2 * shape.keyValueHeads) * shape.headSize;
  const planeLength = shape.keyValueHeads * capacity * shape.headSize;
  const qkv = randomActivations(taken * part.tokens * width, 8);
  const random = [1, 2].map((seed) => randomActivations(sequences * planeLength, seed));
  const planes = packCache(random[0], random[1], capacity, headSize, bits);
  const [keyPlane, valuePlane] = [
    await gpu.uploadStorage("keys", planes[0]),
    await gpu.uploadStorage("values", planes[1]),
  ];
  const cache = { bits, capacity, keys: whole(keyPlane), values: whole(valuePlane) };
  const range = await createTokenRange(gpu, sequences * part.tokens, sequences);
  setTokenRange(gpu, range, taken * part.tokens, part.first);
  const buffer = await gpu.uploadStorage("qkv", qkv);
  const rotation = rotationOf({ theta: 10000 }, shape.headSize, capacity);
  const rotations = await gpu.uploadStorage("rotations", rotationTable({ theta: 10000 }, shape.headSize, capacity));
  const out = await poisonedOutput(gpu, taken * part.tokens * shape.heads * shape.headSize);
  gpu.submit([
    await ropeCache(gpu, shape, range, { qkv: buffer, rotations, cache }),
    await prefillAttention(gpu, shape, range, { qkv: buffer, cache, out }),
  ]);
  const rotated = await gpu.readF32(buffer, qkv.length);
  const [keys, values] = unpackCache(await gpu.read(keyPlane), await gpu.read(valuePlane), capacity, headSize, bits);
  const own = (all: Float32Array, sequence: number) =>
    all.subarray(sequence * planeLength, (sequence + 1) * planeLength);
  const found = await readOutput(gpu, out);
  const length = part.tokens * shape.heads * shape.headSize;
  for (let sequence = 0; sequence < taken; sequence++) {
    const tokens = rotated.subarray(sequence * part.tokens * width, (sequence + 1) * part.tokens * width);
    const expected = attendOnCpu(
      shape,
      part,
      tokens,
      own(keys, sequence),
      own(values, sequence),
      gpu.profile.matrixUnits,
    );
    assertWithin(found.slice(sequence * length, (sequence + 1) * length), expected, `sequence ${sequence}`);
    // Of the last token, whose position is the last of its sequence.
    const last = qkv.slice((sequence * part.tokens + part.tokens - 1) * width).subarray(0, width);
    rotateHeads(last, 0, shape.heads + shape.keyValueHeads, rotation, part.first + part.tokens - 1);
    const key = own(keys, sequence).subarray((part.first + part.tokens - 1) * shape.headSize).subarray(
      0,
      shape.headSize,
    );
    const exact = last.subarray(shape.heads * headSize).subarray(0, headSize);
    // Half a step of bytes, of which the largest is 127.
    const largest = exact.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    assertClose(key, exact, bits === 8 ? 1.01 * largest / 254 : 2e-3);
  }
  const [untouched] = unpackCache(planes[0].buffer, planes[1].buffer, capacity, headSize, bits);
  assertEquals(own(keys, taken), own(untouched, taken));
  for (const { buffer } of [cache.keys, cache.values]) gpu.destroyBuffer(buffer);
}

interface RopeCase {
  /** Index of the sequence in a cache of two. */
  readonly sequence: number;
  readonly shape: AttentionShape;
  readonly part: Part;
  readonly capacity: number;
  readonly hasBias: boolean;
  readonly hasNorm: boolean;
}

const ROPE_CASES: readonly RopeCase[] = [
  {
    sequence: 1,
    shape: { heads: 4, keyValueHeads: 2, headSize: 64 },
    part: { first: 0, tokens: 3 },
    capacity: 5,
    hasBias: false,
    hasNorm: false,
  },
  {
    sequence: 0,
    shape: { heads: 2, keyValueHeads: 1, headSize: 128 },
    part: { first: 131000, tokens: 2 },
    capacity: 131072,
    hasBias: true,
    hasNorm: false,
  },
  {
    sequence: 1,
    shape: { heads: 3, keyValueHeads: 3, headSize: 40 },
    part: { first: 4090, tokens: 6 },
    capacity: 4096,
    hasBias: false,
    hasNorm: true,
  },
];

/** q, k and v of one token before rotation, as the kernel's arguments say. */
function prepare({ shape, hasBias, hasNorm }: RopeCase, token: Float32Array, bias: Float32Array, norms: Float32Array) {
  const { heads, keyValueHeads, headSize } = shape;
  const prepared = token.map((value, i) => hasBias ? value + bias[i] : value);
  for (let head = 0; hasNorm && head < heads + keyValueHeads; head++) {
    const values = prepared.subarray(head * headSize, (head + 1) * headSize);
    const mean = values.reduce((sum, value) => sum + value * value, 0) / headSize;
    const weights = norms.subarray(head < heads ? 0 : headSize);
    values.forEach((value, i) => values[i] = value / Math.sqrt(mean + 1e-6) * weights[i]);
  }
  return prepared;
}

async function checkRope(kind: RopeCase) {
  const gpu = await testGpu();
  const { sequence, shape, part, capacity, hasBias, hasNorm } = kind;
  const { heads, keyValueHeads, headSize } = shape;
  const width = (heads + 2 * keyValueHeads) * headSize;
  const qkv = randomActivations(part.tokens * width, 8);
  const bias = randomActivations(width, 9);
  const norms = randomActivations(2 * headSize, 10);
  const rotation = rotationOf({ theta: 10000 }, headSize, capacity);
  const plane = async (label: string) =>
    whole(await gpu.createStorage(label, 2 * 2 * keyValueHeads * capacity * headSize));
  const cache = { capacity, keys: await plane("keys"), values: await plane("values") };
  const range = await createTokenRange(gpu, part.tokens + 1);
  setTokenRange(gpu, range, part.tokens, part.first, sequence);
  const buffer = await gpu.uploadStorage("qkv", qkv);
  const dispatch = await ropeCache(gpu, shape, range, {
    qkv: buffer,
    rotations: await gpu.uploadStorage("rotations", rotationTable({ theta: 10000 }, headSize, capacity)),
    ...(hasBias && { bias: await gpu.uploadStorage("bias", bias) }),
    ...(hasNorm && { headNorm: { weights: await gpu.uploadStorage("norms", norms), epsilon: 1e-6 } }),
    cache,
  });
  gpu.submit([dispatch]);
  const actual = await gpu.readF32(buffer, qkv.length);
  for (let t = 0; t < part.tokens; t++) {
    const expected = prepare(kind, qkv.subarray(t * width, (t + 1) * width), bias, norms);
    // Rotation keeps the length of a pair, so its error is a share of the largest element.
    const largest = expected.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    rotateHeads(expected, 0, heads + keyValueHeads, rotation, part.first + t);
    const cached = await readCached(cache, kind, part.first + t);
    const token = [...actual.subarray(t * width, t * width + heads * headSize), ...cached];
    const bound = Float64Array.from(expected, (value, i) => {
      // cos and sin to 2^-22, products, norm and bias; f16 to one unit in the last place, as WGSL promises.
      return largest * (16 + headSize / 8) * EPSILON +
        (i < heads * headSize ? 0 : Math.abs(value) * 2 ** -10 + 2 ** -24);
    });
    assertWithin(token, { y: Float64Array.from(expected), bound }, `${JSON.stringify(kind)}, token ${t}`);
  }
  await assertUntouched(cache, kind);
  for (const { buffer } of [cache.keys, cache.values]) gpu.destroyBuffer(buffer);
}

/** Keys, then values, of one position. */
async function readCached(
  { keys, values, capacity }: KeyValueCache,
  { sequence, shape }: RopeCase,
  position: number,
) {
  const gpu = await testGpu();
  const cached: number[] = [];
  for (const plane of [keys, values]) {
    for (let head = 0; head < shape.keyValueHeads; head++) {
      const at = ((sequence * shape.keyValueHeads + head) * capacity + position) * shape.headSize * 2;
      cached.push(...new Float16Array(await gpu.read(plane.buffer, shape.headSize * 2, at)));
    }
  }
  return cached;
}

/** The cache's first words and the other sequence are still zero, unless they were to be written. */
async function assertUntouched({ keys, values }: KeyValueCache, { sequence, part }: RopeCase) {
  const gpu = await testGpu();
  for (const plane of [keys, values]) {
    if (part.first > 0) assertEquals(new Uint32Array(await gpu.read(plane.buffer, 16)), new Uint32Array(4));
    const other = new Uint32Array(await gpu.read(plane.buffer, plane.size / 2, (1 - sequence) * plane.size / 2));
    assert(other.every((word) => word === 0), "the other sequence is as it was");
  }
}

test("rope_cache rotates as the CPU does, up to position 131000, and fills the cache", async () => {
  for (const kind of ROPE_CASES) await checkRope(kind);
});

test("attention shapes that cannot be read are refused", () => {
  const odd = { heads: 1, keyValueHeads: 1, headSize: 12 };
  assertThrows(() => checkAttentionShape(odd), RangeError, "head size is 12, must be a multiple of 8 up to 256");
  const ungrouped = { heads: 3, keyValueHeads: 2, headSize: 8 };
  assertThrows(() => checkAttentionShape(ungrouped), RangeError, "heads is 3, must be a multiple of 2");
});
