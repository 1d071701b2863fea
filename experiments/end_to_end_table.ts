// The table of `end_to_end`, and how the claim is judged by it.
import type { OperationKind } from "../model/engine/layer_operations.ts";
import { type Format, FORMATS } from "../model/engine/random_source.ts";
import type { OperationTimes } from "../model/engine/speed.ts";
import { type Estimate, medianEstimate, ratioOf } from "../model/host/statistics.ts";
import { describeNear, describeNoise, formatEstimate, STATUS_RULE, statusOfAtLeast } from "./results/judge.ts";
import { END_TO_END_SPEEDUP } from "./results/paper.ts";
import {
  type Cell,
  type Column,
  estimateCells,
  estimateColumns,
  estimateOf,
  type Row,
  type Verdict,
} from "./results/result.ts";

/** The model that the claim is about. */
export const CLAIMED_MODEL = "llama-2-7b";
/** The context that it is judged at. */
const CLAIMED_CONTEXT = 128;

/** What a row says that the device had no room for. */
export const DOES_NOT_FIT = "does not fit on this device";

const LINEAR: readonly OperationKind[] = ["qkv", "o", "gate+up", "down", "head"];
const BESIDE_LINEAR: readonly OperationKind[] = ["attention", "pick"];
const OPERATIONS: readonly OperationKind[] = [...LINEAR, ...BESIDE_LINEAR];
/** What runs beside layers that run whole. */
const OUTSIDE_LAYERS: readonly OperationKind[] = ["head", "pick"];

/**
 * Cells of a context; the note says why one is empty.
 *
 * @param whyNotWhole why layers don't run whole, where they don't
 */
export function describe(
  generation: readonly number[],
  times: OperationTimes,
  encodeUs: number,
  weightBytes: number,
  memoryBytes: number,
  whyNotWhole?: string,
): Row {
  const token = medianEstimate(generation.map((speed) => 1e6 / speed));
  const layers = times.get("layers");
  const other = sumOf(token, sumTimes(times, layers ? ["layers", ...OUTSIDE_LAYERS] : OPERATIONS), -1);
  // What was timed is then not what a token runs.
  const isTooLong = layers !== undefined && layers.value > token.value;
  return {
    ...speedCells(generation),
    layers_us: isTooLong ? null : layers?.value ?? null,
    ...Object.fromEntries(OPERATIONS.map((kind) => [`${kind}_us`, times.get(kind)?.value ?? null])),
    ...estimateCells("other_us", isTooLong ? undefined : other),
    ...estimateCells("linear_share", shareOf(sumTimes(times, LINEAR), sumTimes(times, BESIDE_LINEAR))),
    encode_us: encodeUs,
    weight_bytes: weightBytes,
    memory_bytes: memoryBytes,
    note: joinNotes(
      whyNotWhole === undefined ? null : `layers don't run whole: ${whyNotWhole}`,
      isTooLong
        ? `whole layers took ${
          layers.value.toFixed(0)
        } us by themselves, more than the token, and are left out with other`
        : describeOther(other),
    ),
  };
}

/** Cells of generation alone. */
export function speedCells(generation: readonly number[]): Row {
  return {
    ...estimateCells("decode_tokens_per_s", medianEstimate(generation)),
    decode_min: Math.min(...generation),
    decode_max: Math.max(...generation),
    token_us: medianEstimate(generation.map((speed) => 1e6 / speed)).value,
  };
}

/** One note of several, where there are any. */
export function joinNotes(...notes: readonly Cell[]): string | null {
  return notes.filter((note) => note !== null).join("; ") || null;
}

/** The time of several operations, each measured by itself. */
function sumTimes(times: OperationTimes, kinds: readonly OperationKind[]): Estimate {
  const found = kinds.flatMap((kind) => times.get(kind) ?? []);
  return found.reduce((sum, each) => sumOf(sum, each, 1), { value: 0, standardError: 0 });
}

/** a + factor b, measured apart. */
function sumOf(a: Estimate, b: Estimate, factor: number): Estimate {
  return { value: a.value + factor * b.value, standardError: Math.hypot(a.standardError, factor * b.standardError) };
}

/** The share that `part` has of itself and `rest`, measured apart. */
function shareOf(part: Estimate, rest: Estimate): Estimate {
  const whole = part.value + rest.value;
  const standardError = Math.hypot(rest.value * part.standardError, part.value * rest.standardError) / whole ** 2;
  return { value: part.value / whole, standardError };
}

/** Where nothing is left beyond what was measured by itself. */
function describeOther(other: Estimate): string | null {
  const noise = describeNoise(other, "us", 1);
  if (noise) return `other is ${noise}`;
  return other.value < 0 ? "operations take longer by themselves than in the token, by -other" : null;
}

export const COLUMNS: readonly Column[] = [
  { key: "model", label: "model", unit: "" },
  { key: "format", label: "format", unit: "" },
  { key: "context", label: "context", unit: "tokens" },
  ...estimateColumns({ key: "decode_tokens_per_s", label: "decode, median", unit: "tokens/s", timed: true }),
  { key: "decode_min", label: "least", unit: "tokens/s", timed: true },
  { key: "decode_max", label: "most", unit: "tokens/s", timed: true },
  ...estimateColumns({ key: "prefill_tokens_per_s", label: "prompt", unit: "tokens/s", timed: true }),
  ...estimateColumns({ key: "bandwidth_fraction", label: "of read bandwidth", unit: "share", timed: true }),
  { key: "token_us", label: "a token", unit: "us", timed: true },
  { key: "layers_us", label: "whole layers", unit: "us", timed: true },
  ...OPERATIONS.map((kind) => ({ key: `${kind}_us`, label: kind, unit: "us", timed: true })),
  ...estimateColumns({ key: "other_us", label: "other", unit: "us", timed: true }),
  ...estimateColumns({ key: "linear_share", label: "in linear layers", unit: "share", timed: true }),
  { key: "encode_us", label: "encoding on the host", unit: "us", timed: true },
  { key: "weight_bytes", label: "weights", unit: "bytes" },
  { key: "memory_bytes", label: "device memory", unit: "bytes" },
  { key: "note", label: "note", unit: "", timed: true },
];

export const EMPTY_ROW: Row = Object.fromEntries(COLUMNS.map(({ key }) => [key, null]));

/**
 * Compares the two formats of the model that the claim is about, or of another, of which it says nothing. Where one of them
 * has no speed nothing is judged.
 */
export function judgeEndToEnd(rows: readonly Row[], model: string): Verdict {
  const unit = `x the f16 engine, ${model}, decode at context ${CLAIMED_CONTEXT}`;
  const verdict = { paper: END_TO_END_SPEEDUP, unit };
  const speedOf = (format: Format): Estimate => {
    const row = rows.find((r) => r.model === model && r.format === format && r.context === CLAIMED_CONTEXT);
    return estimateOf(row ?? {}, "decode_tokens_per_s");
  };
  const [full, packed] = [speedOf("f16"), speedOf("twobit")];
  if (!(full.value > 0 && packed.value > 0)) {
    const missing = FORMATS.filter((format) => !(speedOf(format).value > 0)).join(" and ");
    const note = `${model} at context ${CLAIMED_CONTEXT} has no speed in ${missing}; both are needed.`;
    return { ...verdict, measured: null, status: "not measured", note };
  }
  const speedup = ratioOf(packed, full);
  const speeds = `${formatEstimate(packed, 1)} against ${
    formatEstimate(full, 1)
  } tokens/s, both by this engine in one run.`;
  const measured = formatEstimate(speedup);
  if (model !== CLAIMED_MODEL) {
    const note = `${measured} ${unit}: ${speeds}`;
    return { paper: "nothing of this model", measured: null, unit: "", status: "not measured", note };
  }
  return {
    ...verdict,
    measured,
    status: statusOfAtLeast(speedup, END_TO_END_SPEEDUP),
    note:
      `${speeds} The original is this engine in f16; other programs in 16 bits, where they were measured on the same ` +
      `device, stand below the table.${describeNear("The speed-up", speedup, END_TO_END_SPEEDUP)} ${STATUS_RULE}`,
  };
}
