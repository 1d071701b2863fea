// Taking the calibration text through a model while its layers are being quantized.
import { type Feedback, type FeedbackSettings, prepareFeedback } from "../../quant/error_feedback.ts";
import type { CalibrationPart, StageSums } from "./calibration.ts";
import type { ModelConfig } from "../llama/config.ts";
import { STAGES } from "../llama/layer.ts";
import { embedTokens } from "../llama/forward.ts";
import type { Layer } from "../llama/llama.ts";
import { moveToShared } from "../host/shared.ts";
import type { QuantizePool } from "./quantize_tasks.ts";
import type { Calibration } from "./quantizing_device.ts";

/** Windows that are calibrated together; fixed, so that sums don't depend on the number of workers. */
const PART_WINDOWS = 4;

/** Sums of a stage over all calibration text; f64 where they are factored, else in shared memory for the workers. */
export interface TotalSums {
  /** f64 [channels, channels]: the Hessian. */
  readonly gram: Float64Array;
  /** f32 [channels, channels]: see {@linkcode StageSums}. */
  readonly drift: Float32Array | undefined;
  /** f32 [hidden, channels]: see {@linkcode StageSums}. */
  readonly lack: Float32Array | undefined;
  /** Prepares error feedback from the Hessian. */
  readonly prepare: (settings: FeedbackSettings) => Feedback;
}

/** A layer as it is and as it is becoming. */
export interface LayerPair {
  readonly index: number;
  readonly original: Layer;
  /** The same layer, with the matrices of earlier stages quantized. */
  readonly quantized: Layer;
}

/** The calibration text on its way through a model. */
export interface Calibrator {
  /** Takes the text to the inputs of a stage, or with the number of stages to the next layer; stages come in order. */
  advance(pair: LayerPair, stage: number): Promise<void>;
  /** Sums the inputs of the stage that the text has come to. */
  sumStage(pair: LayerPair, stage: number): Promise<TotalSums>;
}

/** Puts calibration windows on their way. @throws {RangeError} when there are none */
export function createCalibrator(
  pool: QuantizePool,
  config: ModelConfig,
  { embedding, windows, correctTarget }: Calibration,
): Calibrator {
  if (windows.length === 0) throw new RangeError("calibration has 0 windows, must have at least 1");
  const widest = Math.max(config.hidden, config.intermediate, config.heads * config.headSize);
  const parts = Array.from({ length: Math.ceil(windows.length / PART_WINDOWS) }, (_, i) => {
    const mine = windows.slice(i * PART_WINDOWS, (i + 1) * PART_WINDOWS);
    const lengths = mine.map(({ length }) => length);
    const tokens = lengths.reduce((sum, length) => sum + length, 0);
    const stream = () => ({
      hidden: moveToShared(embedTokens(config, embedding, mine.map((tokens) => ({ tokens })))),
      input: new Float32Array(new SharedArrayBuffer(tokens * widest * 4)),
    });
    return { lengths, quantized: stream(), ...(correctTarget && { original: stream() }) };
  });
  const payloads = (pair: LayerPair, stage: number): CalibrationPart[] =>
    parts.map(({ lengths, quantized, original }) => ({
      config,
      stage,
      lengths,
      quantized: { ...quantized, layer: pair.quantized },
      ...(original && { original: { ...original, layer: pair.original } }),
    }));
  return {
    advance: async (pair, stage) => void await pool.map("advanceStage", payloads(pair, stage)),
    async sumStage(pair, stage) {
      const totals: Partial<Record<keyof StageSums, Float64Array>> = {};
      const tasks = payloads(pair, stage);
      // One round of the workers at a time, so that only so many parts' sums are in memory.
      for (let i = 0; i < tasks.length; i += pool.size) {
        for (const sums of await pool.map("sumStage", tasks.slice(i, i + pool.size))) addTo(totals, sums);
      }
      const shared = (sum: Float64Array | undefined) => sum && moveToShared(Float32Array.from(sum));
      const gram = totals.gram!;
      const prepare = (settings: FeedbackSettings) => prepareFeedback(gram, settings);
      return { gram, drift: shared(totals.drift), lack: shared(totals.lack), prepare };
    },
  };
}

/**
 * Measures every stage's sums on the unquantized model and returns a calibrator that repeats them: for comparing many
 * settings on equal calibration without going through the text each time. Targets aren't corrected. Holds the sums of all
 * layers in memory, so it is for small models.
 */
export async function createFixedCalibrator(
  calibrator: Calibrator,
  layers: readonly Layer[],
): Promise<Calibrator> {
  const known: (readonly TotalSums[])[] = [];
  for (const [index, original] of layers.entries()) {
    const pair = { index, original, quantized: original };
    const sums: TotalSums[] = [];
    for (const stage of STAGES.keys()) {
      await calibrator.advance(pair, stage);
      sums.push(preparedOnce(await calibrator.sumStage(pair, stage)));
    }
    await calibrator.advance(pair, STAGES.length);
    known.push(sums);
  }
  return {
    advance: () => Promise.resolve(),
    sumStage: ({ index }, stage) => Promise.resolve(known[index][stage]),
  };
}

/** Sums that factor their Hessian once for all that ask with the same settings one after the other. */
function preparedOnce(sums: TotalSums): TotalSums {
  let last: { readonly settings: string; readonly feedback: Feedback } | undefined;
  return {
    ...sums,
    prepare(wanted) {
      const settings = JSON.stringify(wanted);
      if (last?.settings !== settings) last = { settings, feedback: sums.prepare(wanted) };
      return last.feedback;
    },
  };
}

function addTo(totals: Partial<Record<keyof StageSums, Float64Array>>, sums: StageSums): void {
  for (const key of ["gram", "drift", "lack"] as const) {
    const part = sums[key];
    if (!part) continue;
    const total = totals[key] ??= new Float64Array(part.length);
    for (let i = 0; i < total.length; i++) total[i] += part[i];
  }
}
