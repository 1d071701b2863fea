import { dequantize } from "../../quant/dequantize.ts";
import type { RefineEvery } from "../../quant/format.ts";
import { pack, unpack } from "../../quant/pack.ts";
import { type PackedTensor, type PlaneName, validatePackedTensor } from "../../quant/packed_tensor.ts";
import { createRandom } from "../../quant/random.ts";
import { assert, assertEquals, assertThrows } from "../assert.ts";
import { assertFinite, PLANES, randomUnpacked } from "./helpers.ts";

const TENSOR = pack(randomUnpacked(1, 20, 200, 8, 0.02));
const DENSITIES = new Map<RefineEvery, PackedTensor>(
  (["none", 16, 8, 4, 2, 1] as const).map((every) => [every, pack(randomUnpacked(2, 6, 300, every, 0.02))]),
);

/** All outliers lie in the first row: what walks on from there meets no other row's. */
const FIRST_ROW_ONLY = pack({
  ...randomUnpacked(4, 3, 128, 8, 0),
  outliers: { start: Uint32Array.of(0, 2, 2, 2), channel: Uint16Array.of(3, 90), residual: Float16Array.of(1, -0.5) },
});

/** A copy with one element of a plane changed. */
function withElement(tensor: PackedTensor, name: PlaneName, at: number, value: number): PackedTensor {
  const plane = tensor[name].slice();
  plane[at] = value;
  return { ...tensor, [name]: plane };
}

function assertRefused(tensor: PackedTensor, includes: string): void {
  assertThrows(() => validatePackedTensor(tensor), RangeError, includes);
}

Deno.test("validatePackedTensor: accepts what pack makes", () => {
  validatePackedTensor(TENSOR);
  for (const tensor of DENSITIES.values()) validatePackedTensor(tensor);
});

Deno.test("validatePackedTensor: refuses a plane that is too short or too long", () => {
  for (const name of PLANES) {
    const plane = TENSOR[name];
    const longer = new (plane.constructor as Uint32ArrayConstructor)(plane.length + 1);
    for (const wrong of [plane.slice(1), longer, plane.slice(0, 0)]) {
      assertRefused({ ...TENSOR, [name]: wrong }, "elements, must have");
    }
  }
});

Deno.test("validatePackedTensor: refuses shapes that the planes don't have", () => {
  for (const [rows, channels] of [[19, 200], [21, 200], [20, 128], [20, 257]]) {
    assertRefused({ ...TENSOR, rows, channels }, "elements, must have");
  }
  for (const bad of [0, -1, 1.5, NaN, Infinity, 2 ** 60]) {
    assertRefused({ ...TENSOR, rows: bad }, `rows is ${bad}, must be a positive integer`);
    assertRefused({ ...TENSOR, channels: bad }, `channels is ${bad}, must be a positive integer`);
  }
  assertRefused({ ...TENSOR, channels: 65537 }, "channels is 65537, must be at most 65536");
});

Deno.test("validatePackedTensor: refuses another refineEvery", () => {
  for (const bad of [0, 3, 32, "8", "all"]) {
    const message = `refineEvery is ${bad}, must be one of none, 16, 8, 4, 2, 1`;
    assertRefused({ ...TENSOR, refineEvery: bad as RefineEvery }, message);
  }
  // Densities whose planes differ in length.
  for (const other of ["none", 16, 4, 2, 1] as const) assertRefused({ ...TENSOR, refineEvery: other }, "plane refine");
});

Deno.test("validatePackedTensor: refuses pick fields outside their run, unequal ones and spare bits", () => {
  const withPick = (every: RefineEvery, word: number, pick: number) => {
    const tensor = DENSITIES.get(every)!;
    return withElement(tensor, "meta", word, (tensor.meta[word] & 0x0fffffff) | pick << 28);
  };
  // Five words a row; word 6 is the second of row 1.
  assertRefused(withPick("none", 6, 1), "row 1: pick field of meta word 1 is 1, must be below 1");
  assertRefused(withPick(1, 6, 8), "row 1: pick field of meta word 1 is 8, must be below 1");
  assertRefused(withPick(2, 6, 4), "row 1: pick field of meta word 1 is 4, must be below 4");
  assertRefused(withPick(4, 6, 4), "row 1: pick field of meta word 1 is 4, must be below 4");
  assertRefused(withPick(8, 6, 8), "row 1: pick field of meta word 1 is 8, must be below 8");
  // The runs of 16 and of 8 at the end of 20 groups hold 4, of which none need be refined.
  assertRefused(withPick(16, 9, 5), "row 1: pick field of meta word 4 is 5, must be below 5");
  assertRefused(withPick(8, 9, 5), "row 1: pick field of meta word 4 is 5, must be below 5");
  for (const [every, word] of [[8, 6], [16, 8]] as const) {
    const tensor = DENSITIES.get(every)!;
    const now = tensor.meta[word] >>> 28;
    const other = (now + 1) % 8;
    assertRefused(withPick(every, word, other), `is ${other}, must be ${now} as in word 0`);
  }
});

Deno.test("validatePackedTensor: refuses a refine word where a short run has no refined group", () => {
  for (const every of [8, 16] as const) {
    const tensor = DENSITIES.get(every)!;
    const last = (2 * tensor.refine.length) / 6 - 1;
    const plain = withElement(tensor, "meta", 9, (tensor.meta[9] & 0x0fffffff) | 4 << 28);
    validatePackedTensor(withElement(plain, "refine", last, 0));
    const message = "row 1: last refine word is 7, must be 0 where its run has no refined group";
    assertRefused(withElement(plain, "refine", last, 7), message);
  }
});

Deno.test("validatePackedTensor: refuses scales and residuals that aren't finite", () => {
  for (const name of ["tileScale", "outlierResidual"] as const) {
    for (const bad of [NaN, Infinity, -Infinity]) {
      assertRefused(withElement(TENSOR, name, 3, bad), `plane ${name} holds ${bad} at 3, must be finite`);
    }
  }
});

Deno.test("validatePackedTensor: refuses outlier starts that fall or don't cover the outliers", () => {
  const { outlierStart, outlierChannel } = TENSOR;
  const count = outlierChannel.length;
  assertRefused(withElement(TENSOR, "outlierStart", 0, 1), `outlierStart runs from 1 to ${count}, must run from 0`);
  assertRefused(withElement(TENSOR, "outlierStart", 20, count - 1), `outlierStart runs from 0 to ${count - 1}`);
  assertRefused(withElement(TENSOR, "outlierStart", 20, count + 1), `outlierStart runs from 0 to ${count + 1}`);
  const row = outlierStart.findIndex((start) => start > 1);
  assertThrows(() => validatePackedTensor(withElement(TENSOR, "outlierStart", row + 1, 0)), RangeError);
  for (const beyond of [count + 1, 0x10000]) {
    assertThrows(() => validatePackedTensor(withElement(TENSOR, "outlierStart", 5, beyond)), RangeError);
  }
});

Deno.test("validatePackedTensor: an outlier start far beyond the end is refused at once", () => {
  const started = performance.now();
  assertRefused(withElement(FIRST_ROW_ONLY, "outlierStart", 1, 0x20000000), "outlierStart");
  const tookMs = performance.now() - started;
  assert(tookMs < 1000, `took ${tookMs} ms: it walks through outliers that don't exist`);
});

Deno.test("validatePackedTensor: refuses outlier channels out of range, equal or falling", () => {
  const { outlierStart, outlierChannel } = TENSOR;
  const row = Array.from({ length: 20 }, (_, r) => r).find((r) => outlierStart[r + 1] - outlierStart[r] >= 2)!;
  const [first, second] = [outlierStart[row], outlierStart[row] + 1];
  const refused = (at: number, channel: number) =>
    assertRefused(
      withElement(TENSOR, "outlierChannel", at, channel),
      `outlier ${at} of row ${row} is at channel ${channel}`,
    );
  refused(first, 200);
  refused(first, 65535);
  refused(second, outlierChannel[first]);
  if (outlierChannel[first] > 0) refused(second, outlierChannel[first] - 1);
});

Deno.test("validatePackedTensor: refuses starts without outliers and outliers without starts", () => {
  const none = { outlierChannel: new Uint16Array(0), outlierResidual: new Float16Array(0) };
  assertRefused({ ...TENSOR, ...none }, "plane outlierStart has 21 elements, must have 0");
  assertRefused({ ...TENSOR, outlierStart: new Uint32Array(0) }, "plane outlierStart has 0 elements, must have 21");
});

const SMALL: readonly PackedTensor[] = [...DENSITIES.values(), pack(randomUnpacked(3, 17, 130, 8, 0)), FIRST_ROW_ONLY];
const CASES = 10_000;

Deno.test(`fuzz: ${CASES} byte flips are refused with a RangeError or decode to finite weights`, () => {
  const random = createRandom(2026);
  let refused = 0;
  for (let i = 0; i < CASES; i++) {
    const tensor = SMALL[random.integer(SMALL.length)];
    const name = PLANES[random.integer(PLANES.length)];
    const plane = tensor[name].slice();
    const bytes = new Uint8Array(plane.buffer);
    // One to three flips; each changes at least one bit.
    for (let flip = random.integer(3); flip >= 0 && bytes.length > 0; flip--) {
      bytes[random.integer(bytes.length)] ^= 1 + random.integer(255);
    }
    const damaged: PackedTensor = { ...tensor, [name]: plane };
    const started = performance.now();
    try {
      validatePackedTensor(damaged);
    } catch (error) {
      assert(error instanceof RangeError, `case ${i}, ${name}: ${error}`);
      refused++;
      const tookMs = performance.now() - started;
      assert(tookMs < 1000, `case ${i}, ${name}: refused after ${tookMs} ms`);
      continue;
    }
    assertFinite(dequantize(damaged));
    // What is accepted has one meaning: it packs to the same bits again.
    const again = pack(unpack(damaged))[name];
    assertEquals(new Uint8Array(again.buffer).join(), bytes.join(), `case ${i}, ${name}`);
  }
  assert(refused > CASES / 10 && refused < (CASES * 9) / 10, `${refused} of ${CASES} refused`);
});
