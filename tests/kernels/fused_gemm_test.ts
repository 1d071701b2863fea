import { REFINE_EVERY } from "../../quant/format.ts";
import { fusedGemm, fusedGemmOnCpu } from "../../kernels/fused_gemm.ts";
import { destroyPackedMatrix, uploadPackedMatrix } from "../../kernels/packed_matrix.ts";
import { assertWithin, poisonedOutput, randomActivations, randomTensor, readOutput, testGpu } from "./helpers.ts";

const CASES = [[64, 256, 64], [70, 300, 3], [1, 1, 1], [130, 1000, 16], [48, 4096, 2], [33, 129, 130]];

for (const refineEvery of REFINE_EVERY) {
  Deno.test(`fused_gemm, refined groups ${refineEvery}: rows x channels x tokens, with and without outliers`, async () => {
    const gpu = await testGpu();
    for (const [rows, channels, tokens] of CASES) {
      for (const outlierShare of [0, 0.01]) {
        const tensor = randomTensor({ rows, channels, refineEvery, outlierShare }, rows + tokens);
        const x = randomActivations(channels * tokens, 9);
        const matrix = await uploadPackedMatrix(gpu, tensor);
        const input = await gpu.uploadStorage("x", x);
        const y = await poisonedOutput(gpu, rows * tokens);
        gpu.submit([await fusedGemm(gpu, matrix, tokens, input, y)]);
        assertWithin(await readOutput(gpu, y), fusedGemmOnCpu(tensor, tokens, x), `${rows} x ${channels} x ${tokens}`);
        destroyPackedMatrix(gpu, matrix);
        gpu.destroyBuffer(input);
      }
    }
  });
}
