import { judgeAsync } from "../../experiments/async_table.ts";
import { judgeCost } from "../../experiments/cost.ts";
import { withoutSoftwareTimings } from "../../experiments/run.ts";
import { CLAIMED_MODEL, describe, DOES_NOT_FIT, judgeEndToEnd } from "../../experiments/end_to_end_table.ts";
import type { OperationKind } from "../../model/engine/layer_operations.ts";
import type { Estimate } from "../../model/host/statistics.ts";
import type { Row } from "../../experiments/results/result.ts";
import { judgeThroughput } from "../../experiments/throughput.ts";
import { OutOfMemoryError, unlessOutOfMemory } from "../../kernels/gpu/device_errors.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "../assert.ts";

const speedRow = (format: string, speed: number | null): Row => ({
  model: "llama-2-7b",
  format,
  context: 128,
  decode_tokens_per_s: speed,
  decode_tokens_per_s_error: speed === null ? null : speed / 100,
});

Deno.test("end_to_end: two speeds give their ratio", () => {
  const { measured, status } = judgeEndToEnd([speedRow("f16", 100), speedRow("twobit", 180)], CLAIMED_MODEL);
  // Two errors of 1 % each.
  assertEquals([measured, status], ["1.80 ± 0.03", "reproduced"]);
  assertEquals(judgeEndToEnd([speedRow("f16", 100), speedRow("twobit", 150)], CLAIMED_MODEL).status, "not reproduced");
});

Deno.test("end_to_end: a speed-up as near to the claim as its error decides nothing, and the note says so", () => {
  // 1.73 and 1.75, each with an error of 0.024: 1.74 is within both.
  for (const speed of [173, 175]) {
    const { status, note } = judgeEndToEnd([speedRow("f16", 100), speedRow("twobit", speed)], CLAIMED_MODEL);
    assertEquals(status, "partly");
    assertStringIncludes(note, "The speed-up differs from 1.74 by no more than its standard error");
  }
});

Deno.test("end_to_end: another model's speed-up is told in the note and not judged", () => {
  const rows = [speedRow("f16", 100), speedRow("twobit", 190)].map((row) => ({ ...row, model: "smol" }));
  const { paper, measured, status, note } = judgeEndToEnd(rows, "smol");
  assertEquals([paper, measured, status], ["nothing of this model", null, "not measured"]);
  assertStringIncludes(
    note,
    "1.90 ± 0.03 x the f16 engine, smol, decode at context 128: 190.0 ± 1.9 against 100.0 ± 1.0",
  );
});

Deno.test("end_to_end: whole layers that take longer than a token are left out, and the note says so", () => {
  const of = (layersUs: number) => {
    const times = new Map<OperationKind, Estimate>(
      Object.entries({ layers: layersUs, head: 20, pick: 5 })
        .map(([kind, value]) => [kind as OperationKind, { value, standardError: 0 }]),
    );
    // 1000 us a token.
    const { layers_us, other_us, note } = describe([1000, 1000, 1000], times, 0, 0, 0);
    return [layers_us, other_us, note];
  };
  assertEquals(of(900), [900, 75, null]);
  assertEquals(of(1001), [
    ...[null, null],
    "whole layers took 1001 us by themselves, more than the token, and are left out with other",
  ]);
});

Deno.test("end_to_end: where layers don't run whole the note says why", () => {
  const times = new Map<OperationKind, Estimate>([["qkv", { value: 999.5, standardError: 1 }]]);
  const { layers_us, note } = describe([1000, 1000, 1000], times, 0, 0, 0, "they are in f16");
  assertEquals([layers_us, note], [
    null,
    "layers don't run whole: they are in f16; other is 0.5 ± 1.0 us: within noise",
  ]);
});

const MISSING: readonly (readonly [rows: readonly Row[], missing: string])[] = [
  [[], "in f16 and twobit;"],
  [[speedRow("twobit", 175)], "in f16;"],
  [[{ model: "llama-2-7b", format: "f16", context: null, note: DOES_NOT_FIT }, speedRow("twobit", 175)], "in f16;"],
  [[speedRow("f16", null), speedRow("twobit", 175)], "in f16;"],
  [[speedRow("f16", 0), speedRow("twobit", 175)], "in f16;"],
  [[speedRow("f16", 100), speedRow("twobit", null)], "in twobit;"],
];

for (const [rows, missing] of MISSING) {
  Deno.test(`end_to_end: no speed ${missing} ${rows.length} rows: nothing is judged`, () => {
    const { measured, status, note } = judgeEndToEnd(rows, CLAIMED_MODEL);
    assertEquals([measured, status], [null, "not measured"]);
    assertStringIncludes(note, missing);
  });
}

const costRows = (runtime: number | null, hardware: number | null): Row[] => [
  { format: "f16", cost_ratio: 1, hardware_ratio: 1 },
  { format: "twobit", cost_ratio: runtime, hardware_ratio: hardware },
];

const COSTS: readonly (readonly [Row[], measured: string | null, status: string])[] = [
  [costRows(3, 3), "runtime 3.00, hardware 3.00", "reproduced"],
  [costRows(3, 2), "runtime 3.00, hardware 2.00", "partly"],
  [costRows(2, 2), "runtime 2.00, hardware 2.00", "not reproduced"],
  [costRows(null, 3), "runtime not measured, hardware 3.00", "partly"],
  [costRows(null, 2), "runtime not measured, hardware 2.00", "not measured"],
  [costRows(null, null), null, "not measured"],
  [[], null, "not measured"],
];

for (const [rows, measured, status] of COSTS) {
  Deno.test(`cost: ${measured ?? `${rows.length} rows without ratios`} is ${status}`, () => {
    const verdict = judgeCost(rows);
    assertEquals([verdict.measured, verdict.status], [measured, status]);
  });
}

Deno.test("cost: the best runtime ratio of equally many GPUs stands beside, and the note says what it would be by itself", () => {
  const row = (hardware: number, ratio: number): Row => ({
    format: "twobit",
    ...{ hardware_ratio: hardware, cost_ratio: ratio, cost_ratio_error: 0.02 },
  });
  const { measured, note } = judgeCost([row(1, 2.6), row(2, 5.2), row(1, 2.69)]);
  assertEquals(measured, "runtime 5.20 ± 0.02 (2.690 ± 0.020 on as many GPUs), hardware 2.00");
  assertStringIncludes(
    note,
    'The runtime ratio on as many GPUs in both formats is "partly" by itself',
  );
  assert(!judgeCost([row(2, 5.2)]).note.includes("as many GPUs"));
});

const asyncRow = (sync: number, threeKernels: number): Row => ({
  variant: "fused_async",
  ...{ speedup_vs_sync: sync, speedup_vs_sync_error: 0.03, speedup_vs_three_kernels: threeKernels },
  ...{ speedup_vs_three_kernels_error: 0.04, speedup_vs_two_pass: 4, speedup_vs_two_pass_error: 0.3 },
  ...{ speedup_vs_f16: 2, speedup_vs_f16_error: 0 },
});

Deno.test("async: by the best shape over the kernel in order and over the pipeline; means are geometric", () => {
  const { measured, status, note } = judgeAsync([asyncRow(1.5, 8), asyncRow(1.2, 2)]);
  assertEquals([measured, status], ["1.50 ± 0.03 (in order), 8.00 ± 0.04 (three kernels)", "partly"]);
  // The root of 8 x 2; half the root of (0.04 / 8)² + (0.04 / 2)² of it.
  assertStringIncludes(note, "8.00 ± 0.04 (4.00 ± 0.04) over three_kernels");
  assertEquals(judgeAsync([asyncRow(4, 8)]).status, "reproduced");
  const near = judgeAsync([asyncRow(3.94, 8)]);
  assertEquals(near.status, "partly");
  assertStringIncludes(near.note, "Asynchrony alone differs from 3.92 by no more than its standard error");
  assertEquals(judgeAsync([asyncRow(1.5, 3.9)]).status, "partly");
  assertEquals(judgeAsync([asyncRow(1.5, 3)]).status, "not reproduced");
});

Deno.test("cost: a ratio as near to the claim as its error decides nothing", () => {
  const rows = [{ format: "twobit", cost_ratio: 2.71, cost_ratio_error: 0.02, hardware_ratio: 4 }];
  const { measured, status, note } = judgeCost(rows);
  assertEquals([measured, status], ["runtime 2.71 ± 0.02, hardware 4.00", "partly"]);
  assertStringIncludes(note, "The runtime ratio differs from 2.7 by no more");
});

Deno.test("unlessOutOfMemory: undefined where there is no room, other errors go on", async () => {
  assertEquals(await unlessOutOfMemory(() => Promise.resolve(3)), 3);
  assertEquals(await unlessOutOfMemory(() => Promise.reject(new OutOfMemoryError("full", 8, 4))), undefined);
  await assertRejects(() => unlessOutOfMemory(() => Promise.reject(new RangeError("other"))), RangeError, "other");
});

Deno.test("withoutSoftwareTimings: no verdict rests on a software adapter's clock", () => {
  const findings = { settings: {}, columns: [], rows: [], verdict: judgeAsync([asyncRow(4, 8)]) };
  const { verdict } = withoutSoftwareTimings({ needsGpu: true }, findings, true);
  assertEquals([verdict.measured, verdict.status, verdict.paper], [null, "not measured", 3.92]);
  assertEquals(withoutSoftwareTimings({ needsGpu: true }, findings, false), findings);
  assertEquals(withoutSoftwareTimings({ needsGpu: false }, findings, true), findings);
});

const jobRow = (webgpu: string, job: string, speed: number | null, format = "twobit"): Row => ({
  webgpu,
  format,
  job,
  tokens_per_s: speed,
  tokens_per_s_error: speed === null ? null : speed / 100,
});

Deno.test("throughput: the job that gains least decides; jobs that one of the two lacks and f16 count for nothing", () => {
  const rows = [
    ...[jobRow("Deno", "prompt", 100), jobRow("Deno", "2 texts", 50), jobRow("Deno", "scoring", null)],
    ...[jobRow("Dawn", "prompt", 400), jobRow("Dawn", "scoring", 10), jobRow("Dawn", "2 texts", 1, "f16")],
  ];
  // Two errors of 1 % each; 49 against 50 is 0.98 with an error of 0.014.
  for (
    const [speed, measured, status] of [
      [75, "1.50 ± 0.02 (2 texts) to 4.00 ± 0.06 (prompt)", "reproduced"],
      [50.2, "1.00 ± 0.01 (2 texts) to 4.00 ± 0.06 (prompt)", "partly"],
      [49, "0.98 ± 0.01 (2 texts) to 4.00 ± 0.06 (prompt)", "not reproduced"],
    ] as const
  ) {
    const verdict = judgeThroughput([...rows, jobRow("Dawn", "2 texts", speed)]);
    assertEquals([verdict.measured, verdict.status], [measured, status]);
  }
  assertEquals(judgeThroughput(rows.filter(({ webgpu }) => webgpu === "Deno")).status, "not measured");
});
