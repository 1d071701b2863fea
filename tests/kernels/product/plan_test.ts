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
