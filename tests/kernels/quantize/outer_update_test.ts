import {
  outerMatrices,
  outerUpdate,
  type Triangle,
  type UpdateRange,
  updateWords,
} from "../../../kernels/quantize/outer_update.ts";
import { summedInputs, turnedTokens } from "../../../kernels/quantize/token_sums.ts";
import { createBufferScope } from "../../../kernels/gpu/buffer_scope.ts";
import { uploadUniforms } from "../../../kernels/gpu/uniforms.ts";
import { createRandom } from "../../../quant/random.ts";
import { assertEquals, assertThrows } from "../../assert.ts";
import { test } from "../../test.ts";
import { emulateMatrices } from "../emulate_matrices.ts";
import { assertWithin, testGpu } from "../helpers.ts";
import { outerOnCpu } from "./outer_reference.ts";

/** Elements around each matrix that must stay as they are. */
const RING = 8;
const SENTINEL = 1234.5;

interface Case extends UpdateRange {
  readonly factor?: number;
  readonly triangle?: Triangle;
  readonly byMatrices?: boolean;
}

/** m, n, k: one workgroup, several with ragged edges, a single outer product, whole tiles. */
const CASES: readonly Case[] = [
  { m: 64, n: 128, k: 16 },
  { m: 132, n: 140, k: 37, factor: -1 },
  { m: 4, n: 4, k: 1 },
  { m: 200, n: 12, k: 5, factor: 0.5 },
  { m: 260, n: 260, k: 20, triangle: "upper" },
  { m: 260, n: 260, k: 20, triangle: "lower" },
  { m: 132, n: 392, k: 3, triangle: "upper", cRow: 128 },
  { m: 132, n: 392, k: 3, triangle: "lower", cRow: 128 },
  { m: 132, n: 140, k: 37, byMatrices: true },
  { m: 128, n: 128, k: 32, byMatrices: true },
  { m: 132, n: 392, k: 3, triangle: "upper", cRow: 128, byMatrices: true },
];

for (const { m, n, k, factor = 1, triangle = "all", cRow = 0, byMatrices = false } of CASES) {
  const name = `${m} x ${n}, ${k} products, ${triangle} from row ${cRow}${byMatrices ? ", by matrix units" : ""}`;
  test(`outer_update ${name}: equals the CPU, adds to c and leaves the rest`, async () => {
    const gpu = await testGpu();
    if (byMatrices) emulateMatrices(gpu);
    const random = createRandom(m + n + k);
    const draw = (length: number) => Float32Array.from({ length }, () => random.normal());
    const [a, b] = [draw(k * m), draw(k * n)];
    const stride = n + RING;
    const before = new Float32Array((m + 2) * stride).fill(SENTINEL);
    for (let i = 0; i < m; i++) before.fill(1, (i + 1) * stride, (i + 1) * stride + n);
    const ring = byMatrices ? 0 : RING;
    const padded = (values: Float32Array) => Float32Array.from([...new Float32Array(ring).fill(NaN), ...values]);
    const buffers = [await gpu.uploadStorage("a", padded(a)), await gpu.uploadStorage("b", padded(b))];
    const c = await gpu.uploadStorage("c", before);
    const range = { m, n, k: byMatrices ? turnedTokens(k) : k, aFirst: ring, bFirst: ring, cFirst: stride, cRow };
    using scope = createBufferScope(gpu);
    const [, words] = await uploadUniforms(gpu, scope, [[], updateWords(range)]);
    const update = { range, words, c: { buffer: c, stride }, triangle };
    const turn = async (x: GPUBuffer, width: number) => {
      const turned = await scope.upload("turned", new Float16Array(width * turnedTokens(k)).fill(NaN));
      return (await summedInputs(gpu, [k, width], x, turned)).buffer;
    };
    gpu.submit([
      byMatrices
        ? await outerMatrices(gpu, { ...update, a: await turn(buffers[0], m), b: await turn(buffers[1], n) })
        : await outerUpdate(gpu, {
          ...update,
          a: { buffer: buffers[0], stride: m },
          b: { buffer: buffers[1], stride: n },
          factor,
        }),
    ]);
    const after = await gpu.readF32(c);
    const wanted = outerOnCpu(a, b, k, factor, byMatrices);
    const sums = new Float64Array(m * n);
    for (let at = 0; at < before.length; at++) {
      const [row, column] = [Math.floor(at / stride) - 1, at % stride];
      if (before[at] === SENTINEL) {
        assertEquals(after[at], SENTINEL);
        continue;
      }
      const i = row * n + column;
      const across = column - row - cRow;
      if (triangle === "upper" && across < 0 || triangle === "lower" && across > 0) {
        assertEquals(after[at], 1);
        sums[i] = wanted.y[i];
        continue;
      }
      sums[i] = after[at] - 1;
      wanted.bound[i] += 2 ** -23 * (1 + Math.abs(wanted.y[i]));
    }
    assertWithin(sums, wanted, "c");
    [...buffers, c].forEach((buffer) => gpu.destroyBuffer(buffer));
  });
}

test("outer_update: counts that are no multiples of 4 are refused", () => {
  assertThrows(() => updateWords({ m: 6, n: 8, k: 1 }), RangeError, "6 x 8");
});
