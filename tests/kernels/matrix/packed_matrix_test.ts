import {
  packedDeviceBytes,
  planesOf,
  readPackedMatrix,
  uploadPackedMatrix,
} from "../../../kernels/matrix/packed_matrix.ts";
import { destroyMatrices } from "../../../kernels/matrix/slabs.ts";
import { REFINE_EVERY } from "../../../quant/format.ts";
import { assertEquals } from "../../assert.ts";
import { assertSameTensor } from "../../quant/helpers.ts";
import { randomTensor, testGpu } from "../helpers.ts";

const SHAPES = [[4, 16], [20, 64], [36, 80], [16, 192], [20, 576], [32, 256]] as const;

Deno.test("packed matrix: what is uploaded is read back, and takes the bytes that are counted", async () => {
  const gpu = await testGpu();
  for (const [rows, channels] of SHAPES) {
    for (const refineEvery of REFINE_EVERY) {
      for (const outlierShare of [0, 0.02]) {
        const tensor = randomTensor({ rows, channels, refineEvery, outlierShare }, rows);
        const matrix = await uploadPackedMatrix(gpu, tensor);
        const bytes = planesOf(matrix.slabs[0]).reduce((sum, { size }) => sum + size, 0);
        const outliers = tensor.outlierChannel.length;
        assertEquals(bytes, packedDeviceBytes(rows, channels, refineEvery, outliers), `${rows} x ${channels}`);
        if (outliers === 0) assertSameTensor(await readPackedMatrix(gpu, matrix), tensor);
        destroyMatrices(gpu, matrix);
      }
    }
  }
});

Deno.test("packed matrix: bytes on the device by hand", () => {
  // 576 channels are 36 groups: a row has 36 base words, 5 refine words and 9 meta words, and a tile 40 scales, as these
  // are padded to whole blocks; 16 bytes stand for no outliers.
  assertEquals(packedDeviceBytes(16, 576, 8, 0), 16 * 4 * (36 + 5 + 9) + 2 * 40 + 16);
  // Two rows are a step of four. Outliers: rows + 1 starts, channels and residuals of 3 in whole words, 28 bytes in all,
  // and planes are padded to 16.
  assertEquals(packedDeviceBytes(2, 64, "none", 3), 2 * 4 * 4 + 16 + 4 * 4 + 2 * 8 + 32);
});
