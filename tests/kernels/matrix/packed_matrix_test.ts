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
        if (outlierShare === 0) {
          assertEquals(bytes, packedDeviceBytes(rows, channels, refineEvery), `${rows} x ${channels}`);
        }
        assertSameTensor(await readPackedMatrix(gpu, matrix), tensor);
        destroyMatrices(gpu, matrix);
      }
    }
  }
});

Deno.test("packed matrix: bytes on the device by hand", () => {
  // 576 channels are 36 groups: a row has 36 base words, 5 refine words and 9 meta words, and a tile 40 scales, as these
  // are padded to whole blocks; 16 bytes stand for no outliers.
  assertEquals(packedDeviceBytes(16, 576, 8), 16 * 4 * (36 + 5 + 9) + 2 * 40 + 16);
  // Two rows are a step of four, and planes are padded to 16 bytes.
  assertEquals(packedDeviceBytes(2, 64, "none"), 2 * 4 * 4 + 16 + 4 * 4 + 2 * 8 + 16);
});

Deno.test("packed matrix: outliers on the device by hand, in compressed rows and in slots", async () => {
  const gpu = await testGpu();
  // 4 slots a row cost 16 and leave 2 outliers at 8 each, 8 cost 32: as much, so 4.
  const matrix = await uploadPackedMatrix(gpu, {
    ...randomTensor({ rows: 4, channels: 64, refineEvery: 8, outlierShare: 0 }, 1),
    outlierStart: Uint32Array.of(0, 0, 1, 3, 9),
    outlierChannel: Uint16Array.of(5, 0, 63, 1, 2, 3, 4, 5, 6),
    // 0x3c00, 0xbc00, 0x4000, 0xc000, 0x3800, 0xb800, 0x4400, 0xc400, 0x4800.
    outlierResidual: Float16Array.of(1, -1, 2, -2, 0.5, -0.5, 4, -4, 8),
  });
  const [slab] = matrix.slabs;
  const { outlierResiduals, outlierCount, slotStart, slots, hasBeyond } = slab;
  assertEquals({ outlierResiduals, outlierCount, slotStart, slots, hasBeyond }, {
    outlierResiduals: 10,
    outlierCount: 9,
    slotStart: 16,
    slots: 4,
    hasBeyond: true,
  });
  const starts = [0, 0, 1, 3, 9];
  const channels = [0x00000005, 0x0001003f, 0x00030002, 0x00050004, 0x00000006];
  const residuals = [0xbc003c00, 0xc0004000, 0xb8003800, 0xc4004400, 0x00004800];
  const rowSlots = [
    [0, 0, 0, 0],
    [0x3c000005, 0, 0, 0],
    [0xbc000000, 0x4000003f, 0, 0],
    [0xc0000001, 0x38000002, 0xb8000003, 0x44000004],
  ];
  // A word of padding, so that slots begin with a vector.
  const expected = [...starts, ...channels, ...residuals, 0, ...rowSlots.flat()];
  assertEquals([...new Uint32Array(await gpu.read(slab.outliers.buffer, 4 * 32))], expected);
  destroyMatrices(gpu, matrix);
});
