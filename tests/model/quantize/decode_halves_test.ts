import { createCpuPool } from "../../../model/workers/cpu_pool.ts";
import { decodeHalves } from "../../../model/workers/decode_halves.ts";
import { dequantizeStored, quantizeMatrix, type Quantizer } from "../../../quant/quantize.ts";
import { plainLayout } from "../../../quant/baselines/strip_layout.ts";
import { createRandom } from "../../../quant/random.ts";
import { SETTINGS } from "../../../quant/recipe.ts";
import { assertEquals } from "../../assert.ts";

Deno.test("decodeHalves: what dequantizeStored decodes, rounded to f16, by parts; the planes are freed", async () => {
  using pool = createCpuPool(2);
  const [rows, channels] = [150, 256]; // three parts, the last one not whole, nor its last tile
  const random = createRandom(5);
  const weights = Float32Array.from({ length: rows * channels }, () => random.normal());
  const quantizers: Quantizer[] = [
    { kind: "twobit", settings: { ...SETTINGS, outliers: { ...SETTINGS.outliers, share: 0.01 } } },
    { kind: "q2_k" },
    { kind: "strips", settings: { layout: plainLayout(2, 16), search: "minmax" } },
  ];
  for (const quantizer of quantizers) {
    const stored = quantizeMatrix({ weights, rows, channels }, quantizer);
    const expected = new Float16Array(dequantizeStored(stored));
    assertEquals(await decodeHalves(pool, stored), expected);
    const planes = Object.values(stored.tensor).filter((plane) => ArrayBuffer.isView(plane));
    assertEquals(planes.map(({ byteLength }) => byteLength), planes.map(() => 0));
  }
});
