import { decodeQ2kBlock, packQ2kBlock, Q2K_BYTES } from "../../../quant/baselines/q2k.ts";
import { dequantizeQ2k, quantizeQ2k } from "../../../quant/baselines/quantize_q2k.ts";
import { totalBits } from "../../../quant/bits.ts";
import { dequantizeStored, quantizedBits, quantizeMatrix, storedBytes } from "../../../quant/quantize.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertClose, assertEquals, assertThrows } from "../../assert.ts";
import { readJson } from "../../fixture.ts";

/** Super-blocks by numpy 2.4, decoded by gguf 0.19 (tests/fixtures/make_q2k.py); arrays in base64. */
interface Expected {
  readonly rows: number;
  readonly channels: number;
  readonly weights: string;
  readonly importance: string;
  readonly plain: { readonly blocks: string; readonly decoded: string };
  readonly weighted: { readonly blocks: string; readonly decoded: string };
}

const EXPECTED = await readJson<Expected>("q2k.json");
const bytes = (base64: string) => Uint8Array.fromBase64(base64);
const { rows, channels } = EXPECTED;
const weights = new Float32Array(bytes(EXPECTED.weights).buffer);
const importance = new Float64Array(bytes(EXPECTED.importance).buffer);

for (const kind of ["plain", "weighted"] as const) {
  Deno.test(`quantizeQ2k: ${kind} search stores what numpy's does, and decodes as the gguf package does`, () => {
    const tensor = quantizeQ2k(weights, rows, channels, kind === "weighted" ? importance : undefined);
    assertEquals(tensor.blocks, bytes(EXPECTED[kind].blocks));
    const decoded = new Float32Array(bytes(EXPECTED[kind].decoded).buffer);
    assertClose(dequantizeQ2k(tensor), decoded, 1e-7);
  });
}

Deno.test("packQ2kBlock: what is packed is decoded again, for random codes", () => {
  const random = createRandom(3);
  const draw = (length: number, below: number) => Uint8Array.from({ length }, () => random.integer(below));
  const packed = new Uint8Array(3 * Q2K_BYTES).fill(0xaa);
  const block = { d: 0.5, dmin: 0.25, scaleCodes: draw(16, 16), minCodes: draw(16, 16), codes: draw(256, 4) };
  packQ2kBlock(block, packed, Q2K_BYTES);
  const out = new Float32Array(256);
  decodeQ2kBlock(packed, Q2K_BYTES, out, 0);
  const wanted = Array.from(
    block.codes,
    (code, i) => 0.5 * block.scaleCodes[i >> 4] * code - 0.25 * block.minCodes[i >> 4],
  );
  assertEquals(Array.from(out), wanted);
  for (const at of [0, Q2K_BYTES - 1, 2 * Q2K_BYTES, 3 * Q2K_BYTES - 1]) assertEquals(packed[at], 0xaa);
});

Deno.test("quantizeMatrix: q2_k takes 2.625 bits a weight", () => {
  const stored = quantizeMatrix({ weights, rows, channels }, { kind: "q2_k" });
  assertEquals((8 * storedBytes(stored)) / (rows * channels), 2.625);
  assertEquals(totalBits(quantizedBits(rows, channels, { kind: "q2_k" })), 8 * storedBytes(stored));
  const decoded = dequantizeStored(stored);
  const error = (from: Float32Array) => from.reduce((sum, value, i) => sum + (value - weights[i]) ** 2, 0);
  assert(error(decoded) < 0.15 * error(new Float32Array(weights.length)));
});

Deno.test("quantizeQ2k: zeros and constants of either sign keep their value, as far as 4-bit codes can", () => {
  for (const value of [0, 0.25, -0.5]) {
    const constant = new Float32Array(256).fill(value);
    for (const weighted of [undefined, new Float64Array(256).fill(2), new Float64Array(256)]) {
      assertClose(dequantizeQ2k(quantizeQ2k(constant, 1, 256, weighted)), constant, 1e-3);
    }
  }
});

Deno.test("quantizeQ2k: shapes and values that it can't store are refused", () => {
  assertThrows(
    () => quantizeQ2k(new Float32Array(128), 1, 128),
    RangeError,
    "matrix has 128 channels, must have a multiple of 256 for Q2_K",
  );
  assertThrows(() => quantizeQ2k(new Float32Array(256), 1, 256, new Float64Array(2)), TypeError, "is for 2 channels");
  assertThrows(() => quantizeQ2k(new Float32Array(256).fill(NaN), 1, 256), RangeError, "must be finite");
  const huge = Float32Array.from({ length: 256 }, (_, i) => i % 2 === 0 ? 1e9 : -1e9);
  assertThrows(() => quantizeQ2k(huge, 1, 256), RangeError, "must be at most 65504");
});
