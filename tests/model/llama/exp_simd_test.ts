import { createExpSimd } from "../../../model/llama/exp_simd.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertEquals } from "../../assert.ts";

const exponentials = await createExpSimd();

Deno.test("exp simd: 200 arrays are within 2^-51 of Math.exp", () => {
  const random = createRandom(21);
  for (let i = 0; i < 200; i++) {
    const size = 10 ** (random.integer(6) - 3);
    const values = Float32Array.from({ length: 1 + random.integer(300) }, () => size * random.normal());
    const [shift, scale] = [random.normal(), i % 2 === 0 ? -1 : 0.125];
    const found = exponentials(values, shift, scale);
    assertEquals(found.length, values.length);
    for (const [k, value] of values.entries()) {
      const wanted = Math.exp((value - shift) * scale);
      assert(Math.abs(found[k] - wanted) <= 2 ** -51 * wanted, `exp of ${(value - shift) * scale} is ${found[k]}`);
    }
  }
});

Deno.test("exp simd: 0, infinity and NaN, and what f32 can't hold", () => {
  const values = Float32Array.of(0, -0, -700, -1000, -Infinity, 700, 1000, Infinity, NaN);
  assertEquals([...Float32Array.from(exponentials(values, 0, 1))], [1, 1, 0, 0, 0, Infinity, Infinity, Infinity, NaN]);
  assertEquals(exponentials(new Float32Array(0), 0, 1).length, 0);
});
