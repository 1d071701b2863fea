import { addGram, summedInputs, turnedTokens } from "../../../kernels/quantize/token_sums.ts";
import { createBufferScope } from "../../../kernels/gpu/buffer_scope.ts";
import { placeOfRow, readSquareMatrix, slabsBefore } from "../../../kernels/matrix/square_matrix.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { normals } from "../../quant/helpers.ts";
import { test } from "../../test.ts";
import { assertWithin, testGpu, uploadSquare } from "../helpers.ts";
import { emulateMatrices } from "../emulate_matrices.ts";
import { outerOnCpu } from "../quantize/outer_reference.ts";

test("square matrix: slabs hold whole panels of 256 rows, all rows once", async () => {
  const gpu = await testGpu();
  using scope = createBufferScope(gpu);
  const matrix = await uploadSquare(gpu, scope, new Float32Array(1040 ** 2), 4 * 1040 * 600);
  assertEquals(matrix.slabs.map(({ firstRow, rows }) => [firstRow, rows]), [[0, 512], [512, 512], [1024, 16]]);
  const { slab, first } = placeOfRow(matrix, 520);
  assertEquals([slab.firstRow, first], [512, 8 * 1040]);
  assertEquals(slabsBefore(matrix, 600).map(({ rows }) => rows), [512, 88]);
  assertEquals(slabsBefore(matrix, 0), []);
  await assertRejects(() => uploadSquare(gpu, scope, new Float32Array(1040 ** 2), 10 ** 6), RangeError, "256 rows");
});

for (const byMatrices of [false, true]) {
  const how = byMatrices ? "by matrix units" : "in f32";
  test(`addGram ${how}: the upper triangle of the sum, in several slabs the same bytes as in one`, async () => {
    const gpu = await testGpu();
    if (byMatrices) emulateMatrices(gpu);
    const [tokens, size] = [21, 528];
    const x = normals(1, tokens * size);
    const wanted = outerOnCpu(x, x, tokens, 1, byMatrices);
    const results: Float32Array[] = [];
    for (const maxBindingBytes of [undefined, 4 * size * 256]) {
      using scope = createBufferScope(gpu);
      const gram = await uploadSquare(gpu, scope, new Float32Array(size * size), maxBindingBytes);
      assertEquals(gram.slabs.length, maxBindingBytes ? 3 : 1);
      const turned = byMatrices ? await scope.storage("turned", 2 * size * turnedTokens(tokens)) : undefined;
      await addGram(gpu, await summedInputs(gpu, [tokens, size], await scope.upload("x", x), turned), gram);
      results.push(await readSquareMatrix(gpu, gram));
    }
    assertEquals(results[1], results[0]);
    const isUpper = (at: number) => at % size >= Math.floor(at / size);
    assert(results[0].every((value, at) => isUpper(at) || value === 0), "the lower triangle was written");
    assertWithin(results[0].map((value, at) => isUpper(at) ? value : wanted.y[at]), wanted, "gram");
  });
}
