import { createRandom } from "../../quant/random.ts";
import { assert, assertClose, assertEquals } from "../assert.ts";

/**
 * The first 32-bit outputs by seed, from this Python (and nothing of ours):
 *
 *     def stream(seed, n):
 *         state = seed & 0xffffffff
 *         for _ in range(n):
 *             state = (state + 0x9e3779b9) & 0xffffffff
 *             z = state ^ state >> 16
 *             z = z * 0x21f0aaad & 0xffffffff
 *             z ^= z >> 15
 *             z = z * 0x735a2d97 & 0xffffffff
 *             yield z ^ z >> 15
 */
const STREAMS: readonly (readonly [seed: number, outputs: number[]])[] = [
  [0, [0x64625032, 0xd9c0799c, 0xaf362e10, 0x7fa88912]],
  [1, [0x5e2d1772, 0x14e498f0, 0xd20ea1fd, 0xb382f339]],
  [12345, [0xc3b24a19, 0x248b6df5, 0xaf4b7724, 0x1ec7438d]],
  [-1, [0xeb721c8a, 0xffe8bd34, 0x4da2a8ce, 0xa4a5cc85]],
  [2 ** 32 - 1, [0xeb721c8a, 0xffe8bd34, 0x4da2a8ce, 0xa4a5cc85]],
  [2 ** 31, [0x859dc57d, 0xeb16db32, 0xcb531004, 0xd306a1a3]],
];

Deno.test("random: first values agree with an independent implementation", () => {
  for (const [seed, outputs] of STREAMS) {
    const random = createRandom(seed);
    assertEquals(outputs.map(() => random.uniform() * 2 ** 32), outputs, `seed ${seed}`);
  }
});

Deno.test("random: integers and normals agree with the same Python", () => {
  const integers = createRandom(12345);
  assertEquals(Array.from({ length: 4 }, () => integers.integer(10)), [7, 1, 6, 1]);
  const one = createRandom(1);
  assertClose([one.normal(), one.normal()], [0.8345872265302164, -0.5592761073613468], 1e-14);
});

Deno.test("random: normals have mean 0, variance 1 and are finite", () => {
  const random = createRandom(99);
  const values = Float64Array.from({ length: 100_000 }, () => random.normal());
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  // Standard errors: 1 / sqrt(1e5) = 0.0032 and sqrt(2 / 1e5) = 0.0045.
  assert(Math.abs(mean) < 0.013 && Math.abs(variance - 1) < 0.018, `mean ${mean}, variance ${variance}`);
  assert(values.every(Number.isFinite));
});
