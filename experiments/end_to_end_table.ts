/**
 * The table of `end_to_end`, and how the claim is judged by it.
 *
 * @module
 */
import type { OperationKind } from "../model/engine/layer_operations.ts";
import { type Format, FORMATS } from "../model/engine/random_source.ts";
import type { OperationTimes } from "../model/engine/speed.ts";
import { type Estimate, median, medianEstimate, ratioOf } from "../model/host/statistics.ts";
import type { Column, Row, Verdict } from "./results/result.ts";
import { formatEstimate } from "./timed_variants.ts";

/** The paper's speed-up of Llama-2 7B over its 16-bit original. */
const CLAIMED_SPEEDUP = 1.74;
/** The model that the claim is about. */
export const CLAIMED_MODEL = "llama-2-7b";
/** The context that it is judged at. */
const CLAIMED_CONTEXT = 128;

const LINEAR: readonly OperationKind[] = ["qkv", "o", "gate+up", "down", "head"];
const OPERATIONS: readonly OperationKind[] = [...LINEAR, "attention", "pick"];
/** What runs beside layers that run whole. */
const OUTSIDE_LAYERS: readonly OperationKind[] = ["head", "pick"];

/** A speed with its error, under its key. */
export function speedCells(key: string, samples: readonly number[]): Row {
  const { value, standardError } = medianEstimate(samples);
  return { [key]: value, [`${key}_error`]: standardError };
}

/** Cells of a context. */
export function describe(
  generation: readonly number[],
  times: OperationTimes,
  encodeUs: number,
  weightBytes: number,
  memoryBytes: number,
): Row {
  const tokenUs = 1e6 / median(generation);
  const sum = (kinds: readonly OperationKind[]) => kinds.reduce((total, kind) => total + (times.get(kind) ?? 0), 0);
  const layers = times.get("layers");
  return {
    ...speedCells("decode_tokens_per_s", generation),
    decode_min: Math.min(...generation),
    decode_max: Math.max(...generation),
    token_us: tokenUs,
    layers_us: layers ?? null,
    ...Object.fromEntries(OPERATIONS.map((kind) => [`${kind}_us`, times.get(kind) ?? null])),
    other_us: tokenUs - (layers === undefined ? sum(OPERATIONS) : layers + sum(OUTSIDE_LAYERS)),
    linear_share: sum(LINEAR) / sum(OPERATIONS),
    encode_us: encodeUs,
    weight_bytes: weightBytes,
    memory_bytes: memoryBytes,
  };
}

/** Columns of the table. */
export const COLUMNS: readonly Column[] = [
  { key: "model", label: "model", unit: "" },
  { key: "format", label: "format", unit: "" },
  { key: "context", label: "context", unit: "tokens" },
  { key: "decode_tokens_per_s", label: "decode, median", unit: "tokens/s", timed: true },
  { key: "decode_tokens_per_s_error", label: "±", unit: "tokens/s", timed: true },
  { key: "decode_min", label: "least", unit: "tokens/s", timed: true },
  { key: "decode_max", label: "most", unit: "tokens/s", timed: true },
  { key: "prefill_tokens_per_s", label: "prefill of 512", unit: "tokens/s", timed: true },
  { key: "prefill_tokens_per_s_error", label: "±", unit: "tokens/s", timed: true },
  { key: "bandwidth_fraction", label: "of read bandwidth", unit: "share", timed: true },
  { key: "token_us", label: "a token", unit: "us", timed: true },
  { key: "layers_us", label: "whole layers", unit: "us", timed: true },
  ...OPERATIONS.map((kind) => ({ key: `${kind}_us`, label: kind, unit: "us", timed: true })),
  { key: "other_us", label: "other", unit: "us", timed: true },
  { key: "linear_share", label: "in linear layers", unit: "share", timed: true },
  { key: "encode_us", label: "encoding on the host", unit: "us", timed: true },
  { key: "weight_bytes", label: "weights", unit: "bytes" },
  { key: "memory_bytes", label: "device memory", unit: "bytes" },
  { key: "note", label: "note", unit: "" },
];

/** A row without any value. */
export const EMPTY_ROW: Row = Object.fromEntries(COLUMNS.map(({ key }) => [key, null]));

/** Compares the two formats where the claim is made. Where one of them has no speed nothing is judged. */
export function judgeEndToEnd(rows: readonly Row[], isSoftware: boolean): Verdict {
  const verdict = { paper: CLAIMED_SPEEDUP, unit: "x the f16 engine, Llama-2 7B, decode at context 128" };
  if (isSoftware) {
    return { ...verdict, measured: null, status: "not measured", note: "Shows that the engine runs, not how fast." };
  }
  const speedOf = (format: Format): Estimate => {
    const row = rows.find((r) => r.model === CLAIMED_MODEL && r.format === format && r.context === CLAIMED_CONTEXT);
    return { value: Number(row?.decode_tokens_per_s ?? 0), standardError: Number(row?.decode_tokens_per_s_error ?? 0) };
  };
  const [full, packed] = [speedOf("f16"), speedOf("twobit")];
  if (!(full.value > 0 && packed.value > 0)) {
    const missing = FORMATS.filter((format) => !(speedOf(format).value > 0)).join(" and ");
    const note = `${CLAIMED_MODEL} at context ${CLAIMED_CONTEXT} has no speed in ${missing}; both are needed.`;
    return { ...verdict, measured: null, status: "not measured", note };
  }
  const speedup = ratioOf(packed, full);
  return {
    ...verdict,
    measured: formatEstimate(speedup),
    status: speedup.value >= CLAIMED_SPEEDUP ? "reproduced" : "not reproduced",
    note:
      `${formatEstimate(packed, 1)} against ${formatEstimate(full, 1)} tokens/s, both by this engine in one run. The ` +
      "original is this engine in f16, faster than the other programs that were measured on the same device.",
  };
}
