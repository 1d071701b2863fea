import fc from "fast-check";
import { dequantize } from "../../quant/dequantize.ts";
import { REFINE_EVERY, type RefineEvery } from "../../quant/format.ts";
import { packMeta, refinedRunOf, validatePicks } from "../../quant/meta.ts";
import { pack, unpack } from "../../quant/pack.ts";
import { validatePackedTensor } from "../../quant/packed_tensor.ts";
import { NO_OUTLIERS, type UnpackedTensor } from "../../quant/unpacked_tensor.ts";
import { assertEquals, assertThrows } from "../assert.ts";
import { assertSameBits, assertSameTensor, randomUnpacked } from "./helpers.ts";

const SHAPES = fc.record({
  seed: fc.integer(),
  rows: fc.integer({ min: 1, max: 40 }),
  channels: fc.integer({ min: 1, max: 400 }),
  refineEvery: fc.constantFrom(...REFINE_EVERY),
  share: fc.constantFrom(0, 0.001, 0.05, 1),
});

Deno.test("pack: unpack is its inverse for every legal tensor", () => {
  fc.assert(
    fc.property(SHAPES, ({ seed, rows, channels, refineEvery, share }) => {
      const tensor = randomUnpacked(seed, rows, channels, refineEvery, share);
      const packed = pack(tensor);
      validatePackedTensor(packed);
      const again = unpack(packed);
      for (const name of ["codes", "scaleCodes", "zeroCodes", "refined", "tileScale"] as const) {
        assertSameBits(again[name], tensor[name], name);
      }
      for (const name of ["start", "channel", "residual"] as const) {
        assertSameBits(again.outliers[name], tensor.outliers[name], name);
      }
      assertEquals([again.rows, again.channels, again.refineEvery], [rows, channels, refineEvery]);
      assertSameTensor(pack(again), packed);
    }),
    { seed: 20260101, numRuns: 150 },
  );
});

Deno.test("pack: every density, half a block to two and a half, all codes", () => {
  for (const refineEvery of REFINE_EVERY) {
    for (const channels of [1, 16, 64, 65, 80, 127, 128, 129, 192, 320, 576]) {
      const tensor = randomUnpacked(channels, 3, channels, refineEvery, 0.1);
      assertSameBits(unpack(pack(tensor)).codes, tensor.codes);
    }
  }
});

/** `count` times `value`. */
const times = (count: number, value: number) => new Array<number>(count).fill(value);
const QUARTER = [0, 1, 2, 3];

/**
 * One row of one block, group 3 refined. For each group: scale code, zero code, d, the 16 codes.
 * Code i lies in bits 2i, 2i+1 of the group's word, so the hexadecimal digits read from the last pair of codes to the first.
 */
const BLOCK: readonly (readonly [scaleCode: number, zeroCode: number, d: number, codes: number[]])[] = [
  [1, 0, 1, [...QUARTER, ...QUARTER, ...QUARTER, ...QUARTER]], // 0, 1, 2, 3 = 11 10 01 00 = E4
  [15, 7, 0.5, times(16, 3)], //                                  3, 3 = 11 11 = F
  [2, 1, 2, [...times(15, 0), 2]], //                             last code 2 = 10 in bits 30, 31
  [4, 3, 0.25, Array.from({ length: 16 }, (_, code) => code)], // base 0000 1111 2222 3333; refine 0123 four times
  [0, 5, 1, times(16, 1)], //                                     1, 1 = 01 01 = 5
  [8, 2, 0.125, [1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2]], // 1, 2 = 10 01 = 9
  [5, 4, 2 ** -24, [3, ...times(15, 0)]], //                      d is the smallest subnormal f16
  [10, 6, 65504, [2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0]], // d is the largest f16
];

const BLOCK_TENSOR: UnpackedTensor = {
  rows: 1,
  channels: 128,
  refineEvery: 8,
  codes: Uint8Array.from(BLOCK.flatMap(([, , , codes]) => codes)),
  scaleCodes: Uint8Array.from(BLOCK, ([scaleCode]) => scaleCode),
  zeroCodes: Uint8Array.from(BLOCK, ([, zeroCode]) => zeroCode),
  refined: Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 0),
  tileScale: Float16Array.from(BLOCK, ([, , d]) => d),
  outliers: NO_OUTLIERS,
};

Deno.test("pack: a block worked out by hand", () => {
  const packed = pack(BLOCK_TENSOR);
  assertEquals([...packed.base], [
    0xe4e4e4e4,
    0xffffffff,
    0x80000000,
    0xffaa5500,
    0x55555555,
    0x99999999,
    0x00000003,
    0x22222222,
  ]);
  assertEquals([...packed.refine], [0xe4e4e4e4]);
  // 7 bits a group: scale + 16 * zero. Word 0: 01, 7F, 12, 34 hex; word 1: 50, 28, 45, 6A hex; the pick 3 on top of both.
  //   00000001 + 7F << 7 = 00003F80 + 12 << 14 = 00048000 + 34 << 21 = 06800000 + 3 << 28 = 30000000
  //   00000050 + 28 << 7 = 00001400 + 45 << 14 = 00114000 + 6A << 21 = 0D400000 + 3 << 28 = 30000000
  assertEquals([...packed.meta], [0x3684bf81, 0x3d515450]);
  assertEquals([packed.outlierStart.length, packed.outlierChannel.length, packed.outlierResidual.length], [0, 0, 0]);
});

Deno.test("dequantize: the 128 weights of the block worked out by hand", () => {
  const pairs = (a: number, b: number) => Array.from({ length: 16 }, (_, i) => i % 2 === 0 ? a : b);
  const quarter = [-0.625, 0.375, 1.375, 2.375];
  const wanted = [
    ...[...quarter, ...quarter, ...quarter, ...quarter], // (code - 0.625) * 1 * 1
    ...times(16, 4.6875), //                  (3 - 2.375) * 15 * 0.5
    ...times(15, -3.5),
    4.5, //                (0 - 0.875) * 2 * 2, (2 - 0.875) * 4
    ...Array.from({ length: 16 }, (_, code) => code / 4 - 1.78125), // scale 4 * 0.25 = 1, zero 1.21875 + 3 * 0.1875
    ...times(16, -0), //                       (1 - 1.875) * 0
    ...pairs(-0.125, 0.875), //                (1 - 1.125) * 8 * 0.125, (2 - 1.125)
    6.875 * 2 ** -24,
    ...times(15, -8.125 * 2 ** -24), // (3 - 1.625) * 5, (0 - 1.625) * 5
    ...pairs(-81880, -1391960), //             (2 - 2.125) * 655040, (0 - 2.125) * 655040
  ];
  assertSameBits(dequantize(pack(BLOCK_TENSOR)), Float32Array.from(wanted));
});

Deno.test("meta: pick fields of every density", () => {
  const picksOf = (refineEvery: RefineEvery, refinedGroups: readonly number[], groups = 24) => {
    const refined = new Uint8Array(groups);
    for (const group of refinedGroups) refined[group] = 1;
    const words = packMeta(new Uint8Array(groups), new Uint8Array(groups), refined, refineEvery);
    validatePicks(words, refineEvery);
    const runs = Array.from(refined, (_, group) => refinedRunOf(words[group >> 2], group, refineEvery));
    assertEquals(runs.map((run) => run >= 0 ? 1 : 0), [...refined]);
    assertEquals(runs.filter((run) => run >= 0), refinedGroups.map((_, run) => run));
    return Array.from(words, (word) => word >>> 28);
  };
  assertEquals(picksOf("none", []), [0, 0, 0, 0, 0, 0]);
  // 24 groups are three blocks: the second run of 16 is short.
  assertEquals(picksOf(16, [13, 16 + 7]), [13, 13, 13, 13, 7, 7]);
  assertEquals(picksOf(8, [5, 8, 16 + 7]), [5, 5, 0, 0, 7, 7]);
  assertEquals(picksOf(4, [3, 4, 10, 13, 19, 20]), [3, 0, 2, 1, 3, 0]);
  // Two 1-bit indices in a word, the lower run first: groups 1 and 2 = 1 + 2 * 0, 4 and 7 = 0 + 2 * 1, ...
  assertEquals(picksOf(2, [1, 2, 4, 7, 8, 10, 13, 15, 16, 19, 21, 22]), [1, 2, 0, 3, 2, 1]);
  assertEquals(picksOf(1, Array.from({ length: 24 }, (_, group) => group)), [0, 0, 0, 0, 0, 0]);
  // Half a block at the end; a short run without a refined group has its number of groups for an index.
  assertEquals(picksOf(8, [5, 8 + 3], 12), [5, 5, 3]);
  assertEquals(picksOf(8, [5], 12), [5, 5, 4]);
  assertEquals(picksOf(16, [11], 12), [11, 11, 11]);
  assertEquals(picksOf(16, [], 12), [12, 12, 12]);
  assertEquals(picksOf(16, [2, 16], 20), [2, 2, 2, 2, 0]);
  assertEquals(picksOf(16, [2], 24), [2, 2, 2, 2, 8, 8]);
  assertEquals(picksOf(4, [1, 6, 8], 12), [1, 2, 0]);
});

const changed = <T extends "codes" | "scaleCodes" | "zeroCodes" | "refined">(name: T, at: number, value: number) => {
  const plane = BLOCK_TENSOR[name].slice();
  plane[at] = value;
  return { ...BLOCK_TENSOR, [name]: plane };
};

Deno.test("pack: refuses codes out of their range", () => {
  assertThrows(() => pack(changed("codes", 5, 4)), RangeError, "code 5 is 4, must be below 4");
  assertThrows(() => pack(changed("codes", 50, 16)), RangeError, "code 50 is 16, must be below 16");
  assertThrows(() => pack(changed("scaleCodes", 2, 16)), RangeError, "scale code 2 is 16, must be at most 15");
  assertThrows(() => pack(changed("zeroCodes", 7, 8)), RangeError, "zero code 7 is 8, must be at most 7");
});

Deno.test("pack: refuses runs without exactly one refined group, and short ones with two", () => {
  const holds = (count: number) => `groups 0..7 hold ${count} refined groups, must hold 1`;
  assertThrows(() => pack(changed("refined", 5, 1)), RangeError, holds(2));
  assertThrows(
    () => pack({ ...BLOCK_TENSOR, refined: new Uint8Array(8), codes: new Uint8Array(128) }),
    RangeError,
    holds(0),
  );
  const half = {
    ...BLOCK_TENSOR,
    channels: 64,
    codes: new Uint8Array(64),
    scaleCodes: new Uint8Array(4),
    zeroCodes: new Uint8Array(4),
    refined: Uint8Array.of(1, 0, 1, 0),
    tileScale: new Float16Array(4),
  };
  assertThrows(() => pack(half), RangeError, "groups 0..3 hold 2 refined groups, must hold 0 or 1");
  assertThrows(() => pack({ ...BLOCK_TENSOR, refineEvery: "none" }), RangeError, "a group is refined, must be none");
});

Deno.test("pack: refuses planes whose length doesn't fit", () => {
  assertThrows(
    () => pack({ ...BLOCK_TENSOR, tileScale: new Float16Array(7) }),
    RangeError,
    "plane tileScale has 7 elements, must have 8",
  );
  assertThrows(() => pack({ ...BLOCK_TENSOR, channels: 129 }), RangeError, "must have 12");
  for (const name of ["codes", "zeroCodes"] as const) {
    assertThrows(() => pack({ ...BLOCK_TENSOR, [name]: BLOCK_TENSOR[name].slice(1) }), Error, "must ", name);
  }
});

Deno.test("pack: refuses a matrix without rows or channels", () => {
  const none = new Uint8Array(0);
  const empty = { ...BLOCK_TENSOR, codes: none, scaleCodes: none, zeroCodes: none, refined: none };
  assertThrows(() => pack({ ...empty, rows: 0 }), RangeError, "rows is 0");
  assertThrows(() => pack({ ...empty, channels: 0 }), RangeError, "channels is 0");
});
