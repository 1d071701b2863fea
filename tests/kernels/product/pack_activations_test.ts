import { type ActivationBits, activationsOf, packActivations } from "../../../kernels/product/pack_activations.ts";
import { assert, assertEquals } from "../../assert.ts";
import { randomActivations } from "../helpers.ts";

/**
 * Checks the promised error: half a step of 16 bits, two steps of odd channels and of 8 bits, and steps of max |x| /
 * 32512 or 508.
 */
function checkPacked(words: Uint32Array<ArrayBuffer>, x: Float32Array, bits: ActivationBits = 16) {
  const { values, steps } = activationsOf(words, x.length, bits);
  for (let c = 0; c < x.length; c++) {
    const step = steps[Math.floor(c / 16)];
    const slack = (c % 2 === 0 && bits === 16 ? 0.5 : 2) * step * 1.02;
    assert(Math.abs(values[c] - x[c]) <= slack, `activation ${c} is ${values[c]}, must be ${x[c]} within ${slack}`);
    assert(
      Math.abs(x[c]) <= step * (bits === 16 ? 32512 : 508) * (1 + 2 ** -20),
      `step ${step} is too small for ${x[c]}`,
    );
  }
}

/** Sums as stored against sums of the stored integers. */
function checkSums(words: Uint32Array<ArrayBuffer>, channels: number, bits: ActivationBits) {
  const { values, steps } = activationsOf(words, channels, bits);
  const sums = new Float32Array(words.buffer).subarray((words.length / 40) * 36);
  for (let group = 0; group < steps.length; group++) {
    let sum = 0;
    for (const value of values.subarray(group * 16, (group + 1) * 16)) {
      sum += steps[group] > 0 ? value / steps[group] : 0;
    }
    assertEquals(sums[group], Math.round(sum), `sum of group ${group}`);
  }
}

Deno.test("packActivations keeps to its error, and its sums are those of what it stores", () => {
  for (const channels of [4096, 1, 16, 300, 1000]) {
    const x = randomActivations(channels, channels);
    for (const bits of [8, 16] as const) {
      const words = packActivations(x, bits);
      checkPacked(words, x, bits);
      checkSums(words, channels, bits);
    }
  }
});

Deno.test("packActivations by hand: one group", () => {
  const x = new Float32Array(16);
  x[0] = 32512;
  x[1] = -400;
  x[5] = 6;
  const words = packActivations(x);
  const { values, steps } = activationsOf(words, 16);
  assertEquals(steps[0], 1);
  assertEquals([values[0], values[1], values[5]], [32512, -400, 8]); // 6 / 4 = 1.5, to even 2, times 4
  assertEquals(words[0] & 0xff, 127); // high byte of channel 0
  assertEquals(words[64 / 4] & 0xff, 127); // its low byte, after 64 high bytes of half a block: 127 * 255 + 127
});

Deno.test("packActivations by hand: one group in 8 bits", () => {
  const x = new Float32Array(16);
  x[0] = 508;
  x[1] = -400;
  x[2] = 5;
  x[5] = 6;
  const words = packActivations(x, 8);
  const { values, steps } = activationsOf(words, 16, 8);
  assertEquals(steps[0], 1);
  // 5 / 4 = 1.25; 6 / 4 = 1.5, to even 2; all times 4.
  assertEquals([values[0], values[1], values[2], values[5]], [508, -400, 4, 8]);
  assertEquals(words[0] & 0xff, 127); // byte of channel 0
  assertEquals(words.subarray(64 / 4, 128 / 4).every((word) => word === 0), true); // no low bytes
});

Deno.test("packActivations keeps a not-a-number visible", () => {
  for (const bad of [NaN, Infinity, -Infinity]) {
    const x = new Float32Array(128).fill(1);
    x[20] = bad;
    const words = packActivations(x);
    const { steps } = activationsOf(words, 128);
    assertEquals(steps.map((step) => Number.isNaN(step) ? 1 : 0), Float64Array.of(0, 1, 0, 0, 0, 0, 0, 0));
  }
});

Deno.test("packActivations stores next to nothing as zeros", () => {
  const x = new Float32Array(128).fill(1e-31, 0, 16).fill(2e-30, 16, 32);
  const words = packActivations(x);
  const { values } = activationsOf(words, 128);
  assert(values.subarray(0, 16).every((value) => value === 0));
  checkPacked(words, x.fill(0, 0, 16));
});
