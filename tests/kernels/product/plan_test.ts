import { planSeveral, type SeveralPlan } from "../../../kernels/product/few/fused_several.ts";
import { f16Format } from "../../../kernels/product/f16_format.ts";
import { planParts } from "../../../kernels/product/tiled_product.ts";
import { MATRIX_FEW, MATRIX_TILE } from "../../../kernels/product/gemm_tile.ts";
import { packedFormat } from "../../../kernels/product/packed_format.ts";
import type { Gpu } from "../../../kernels/gpu/gpu.ts";
import type { F16Matrix } from "../../../kernels/matrix/f16_matrix.ts";
import type { PackedMatrix } from "../../../kernels/matrix/packed_matrix.ts";
import { planGemv } from "../../../kernels/product/fused_gemv.ts";
import type { DeviceProfile } from "../../../kernels/gpu/device_profile.ts";
import { assert, assertEquals, assertThrows } from "../../assert.ts";
import { H200 } from "../helpers.ts";

/** Workgroup memory and threads: WebGPU's defaults, the software adapter, an H200. */
const DEVICES = [[16384, 256], [32768, 1024], [49152, 1024]];

function profileWith(workgroupBytes: number, workgroupThreads: number): DeviceProfile {
  return { ...H200, workgroupBytes, workgroupThreads };
}

Deno.test("planGemv covers every row and column within the limits of workgroups", () => {
  const shapes = [[1, 2], [4096, 64], [22016, 64], [57344, 128], [8192, 448], [128256, 64], [4096, 172], [70, 6]];
  for (const [memory, threads] of DEVICES) {
    for (const lanes of [4, 8, 32, 64]) {
      for (const [rows, halfBlocks] of shapes) {
        for (const synchronous of [false, true]) {
          const team = { lanes, exchange: "exchange_workgroup", exchangeBytes: 4 } as const;
          const plan = planGemv(profileWith(memory, threads), team, rows, halfBlocks, { synchronous });
          const what = JSON.stringify({ memory, threads, lanes, rows, halfBlocks, synchronous, plan });
          const columns = Math.max(...plan.columns);
          assertEquals(plan.columns.reduce((sum, count) => sum + count), Math.ceil(halfBlocks / lanes), what);
          assert(Math.min(...plan.columns) > 0, what);
          assert(plan.workgroups * plan.workgroupSteps * 4 >= rows, what);
          assert(columns * plan.rowTeams * lanes <= threads, what);
          // Cells, exchange; sums of each column and of outliers, of each step.
          const bytes = columns * lanes * (160 + plan.rowTeams * 4) + plan.workgroupSteps * (columns + 1) * 16;
          assert(bytes + 4 <= memory, `${bytes} bytes: ${what}`);
        }
      }
    }
  }
});

Deno.test("planGemv gives each workgroup as many gate rows as up rows", () => {
  const team = { lanes: 32, exchange: "exchange_subgroup", exchangeBytes: 0 } as const;
  const plan = planGemv(H200, team, 22016, 64, { rowsPerOutput: 2 });
  // 2752 steps of gate rows over 132 workgroups: 21 each, and 21 of up rows; 6 rows of 2 teams walk them in 7 rounds.
  assertEquals(plan, { columns: [2], rowTeams: 6, workgroupSteps: 42, workgroups: 132 });
});

Deno.test("planGemv refuses a device that can't hold one column", () => {
  const team = { lanes: 32, exchange: "exchange_subgroup", exchangeBytes: 0 } as const;
  assertThrows(
    () => planGemv(profileWith(4096, 256), team, 64, 64),
    RangeError,
    "workgroup memory is 4096 bytes, must hold",
  );
});

Deno.test("planSeveral: four tokens where a row has room, else parts of it or two tokens", () => {
  const plan = (rows: number, halfBlocks: number, tokens: number, perOutput: 1 | 2, mayPart: boolean) =>
    planSeveral(H200, rows, halfBlocks, { tokens, perOutput, mayPart });
  // Llama-2 7B's gate and up, and down: 11008 channels of four tokens are 107 KiB, in three parts 20 KiB a column.
  const whole = { tokens: 4, parts: 1, columns: 2, rowTeams: 6, workgroupSteps: 42, workgroups: 132 };
  assertEquals(plan(22016, 64, 4, 2, false), whole as SeveralPlan);
  const parts = { tokens: 4, parts: 3, columns: 2, rowTeams: 6, workgroupSteps: 24, workgroups: 43 };
  assertEquals(plan(4096, 172, 3, 1, true), parts as SeveralPlan);
  assertEquals(plan(4096, 172, 3, 1, false), undefined);
  // 13B's: 5120 channels have room for two.
  assertEquals(plan(27648, 80, 4, 2, false)?.tokens, 2);
  assertEquals(plan(4096, 64, 2, 1, true)?.tokens, 2);
});

Deno.test("planParts cuts channels into as many parts as all multiprocessors have workgroups for at once", () => {
  // 172 tiles of 64 half blocks: 528 workgroups are three each, four of 22 steps for the busiest in two rounds. 1000
  // tiles: one. 32 of 172: of 16 parts it takes four of 11 in two rounds, of 8 two of 22 in one.
  assertEquals(planParts(MATRIX_FEW, H200, 22016, 4096, 16), { run: 22, splits: 3 });
  assertEquals(planParts(MATRIX_FEW, H200, 4096, 11008, 16), { run: 22, splits: 8 });
  // 96 of 64: four of 13 in two rounds, or two of 32 in one.
  assertEquals(planParts(MATRIX_FEW, H200, 12288, 4096, 16), { run: 13, splits: 5 });
  assertEquals(planParts(MATRIX_FEW, H200, 128000, 4096, 16), { run: 64, splits: 1 });
  assertEquals(planParts(MATRIX_FEW, H200, 128, 100, 1), { run: 1, splits: 2 });
  // 264 workgroups are two of 128 tiles, whose steps are half of a half block; 688 tiles stay whole.
  assertEquals(planParts(MATRIX_TILE, H200, 4096, 11008, 512), { run: 172, splits: 2 });
  assertEquals(planParts(MATRIX_TILE, H200, 22016, 4096, 512), { run: 128, splits: 1 });
});

Deno.test("partial sums take bytes for as many tokens as are multiplied in parts of the channels", () => {
  const matrix = { rows: 4096, channels: 4096, halfBlocks: 64, slabs: [{ rows: 4096 }] };
  const taken = (matrixUnits: boolean) => {
    const gpu = { profile: { ...H200, matrixUnits } } as Gpu;
    const has = (bytes: number) => bytes > 0;
    return [3, 4, 5, 64, 65, 1024].map((tokens) => [
      has(packedFormat.partialsBytes(gpu, matrix as unknown as PackedMatrix, tokens)),
      has(f16Format.partialsBytes(gpu, matrix as unknown as F16Matrix, tokens)),
    ]);
  };
  const [none, both] = [[false, false], [true, true]];
  assertEquals(taken(true), [none, [false, true], both, both, both, none]);
  assertEquals(taken(false), [none, none, [true, false], [true, false], none, none]);
});

Deno.test("takesPairs: gate and up in one dispatch where a workgroup has room for whole rows of both", () => {
  const take = (workgroupBytes: number, channels: number, tokens: number) => {
    const gpu = { profile: profileWith(workgroupBytes, 1024) } as Gpu;
    const slab = { firstRow: 0, rows: 4 * channels };
    return packedFormat.takesPairs(
      gpu,
      { slabs: [slab], halfBlocks: channels / 64 } as unknown as PackedMatrix,
      tokens,
    );
  };
  // A 7B's and a 13B's on an H200; a 13B's where a workgroup has WebGPU's 16 KiB; 16,384 channels.
  assertEquals([1, 2, 4].map((tokens) => take(49152, 4096, tokens)), [true, true, true]);
  assertEquals([1, 2, 4].map((tokens) => take(49152, 5120, tokens)), [true, true, true]);
  assertEquals([1, 2, 4].map((tokens) => take(16384, 5120, tokens)), [false, false, false]);
  assertEquals([1, 2, 4].map((tokens) => take(49152, 16384, tokens)), [false, false, false]);
});
