// Results worked by hand, for the tests of result files.
import type { Column, Result, Row } from "../../experiments/results/result.ts";

/** Columns of {@linkcode makeResult}. */
export const COLUMNS: readonly Column[] = [
  { key: "method", label: "method", unit: "" },
  { key: "bits", label: "bits", unit: "a weight" },
  { key: "time", label: "time", unit: "ms", timed: true },
];

/** A result with two rows, changed as wanted. */
export function makeResult(changes: Partial<Result> = {}): Result {
  const rows: readonly Row[] = [
    { method: "fp16", bits: 16, time: 12.5 },
    { method: "rtn2", bits: 3.125, time: null },
  ];
  return {
    schema: 1,
    id: "made_up",
    title: "A made-up result",
    claim: "Two rows.",
    device: { name: "software", adapter: "none", software: true },
    environment: {
      deno: "2.9.6",
      commit: "0123456789abcdef",
      dirty: false,
      model: { name: "tiny", sha256: "fedcba9876543210fedcba9876543210" },
      seed: 1,
      command: "deno task experiment made_up",
      startedAt: "2026-01-01T00:00:00.000Z",
    },
    settings: { windows: 4, text: "sotu" },
    columns: COLUMNS,
    rows,
    verdict: { paper: 2.85, measured: 3.125, unit: "bits", status: "not reproduced", note: "By hand." },
    ...changes,
  };
}
