// Tuning a quantized model: steps along gradients, epoch after epoch, and which of them was best.
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { uploadWeights } from "../engine/engine_weights.ts";
import type { WeightSource } from "../engine/weight_source.ts";
import { letOthersRun } from "../host/event_loop.ts";
import type { TunedParameters } from "./parameters.ts";
import { passShape } from "./pass_buffers.ts";
import { createTuner, type Tuner, type TuningWindow } from "./tuner.ts";
import { epochBatches, rateOfStep, splitWindows, type TuningSettings } from "./tuning_plan.ts";

/**
 * Mean divergence of next-token distributions from the unquantized model's on windows that were not tuned on, in nats.
 * Where windows of a short text overlap, their neighbours were, with some of their tokens: it then says more of how
 * well that text is learnt than of other text.
 */
export interface TuningReport {
  /** As quantized. */
  readonly before: number;
  /** After the best epoch; as before where none was better. */
  readonly after: number;
  /** The best epoch, from 1 on; 0 where the model is best as it was. */
  readonly epoch: number;
}

export interface TunedModel extends TuningReport {
  /** Its parameters after the best epoch; undefined where the model is best as it was. */
  readonly parameters?: TunedParameters;
}

/** Whom tuning tells, and what ends it. */
export interface TuningWatch {
  readonly onProgress?: (share: number, step: string) => void;
  /** Told of each epoch, from 1 on, of how many, with the divergence on held-out windows after it. */
  readonly onEpoch?: (epoch: number, epochs: number, divergence: number) => void;
  /** Ends it before the next step, with the signal's reason. */
  readonly signal?: AbortSignal;
}

/**
 * Tunes scales and norms of a model towards the unquantized one, on some windows; the others say which epoch was best. The
 * same windows, settings and device give the same parameters.
 *
 * @param source the quantized model; matrices that aren't packed stay as they are
 * @param windows at least two, with what the unquantized model makes of them
 * @throws {OutOfMemoryError} when the device has no room
 * @throws {RangeError} when the divergence is no number
 */
export async function tuneModel(
  gpu: Gpu,
  source: WeightSource,
  windows: readonly TuningWindow[],
  settings: TuningSettings,
  { onProgress, onEpoch, signal }: TuningWatch = {},
): Promise<TunedModel> {
  const { epochs, batchWindows, seed } = settings;
  const { tuned, heldOut } = splitWindows(windows);
  onProgress?.(0, "uploading the packed model");
  using weights = await uploadWeights(gpu, source);
  const shape = passShape(gpu, source.config, windows.map(({ tokens }) => tokens.length), batchWindows);
  using tuner = await createTuner(gpu, weights, shape);
  const steps = Array.from({ length: epochs }, (_, epoch) => epochBatches(tuned, batchWindows, seed + epoch));
  const before = await tuner.divergenceOf(heldOut);
  let best: TunedModel = { before, after: before, epoch: 0 };
  let done = 0;
  for (const [epoch, batches] of steps.entries()) {
    for (const batch of batches) {
      // The device's answers don't let interrupts in by themselves.
      await letOthersRun();
      signal?.throwIfAborted();
      const divergence = await takeStep(tuner, batch, rateOfStep(settings.rate, done, epochs * batches.length));
      done++;
      const held = `held-out divergence ${before.toFixed(4)} -> ${best.after.toFixed(4)}`;
      const step = `tuning, epoch ${epoch + 1} of ${epochs}, divergence ${divergence.toFixed(4)}, ${held}`;
      onProgress?.(done / (epochs * batches.length), step);
    }
    const after = await tuner.divergenceOf(heldOut);
    onEpoch?.(epoch + 1, epochs, after);
    // Not after >= best.after: that would take what is no number for the best.
    if (!(after < best.after)) continue;
    best = { before, after, epoch: epoch + 1, parameters: await tuner.parameters.read() };
  }
  return best;
}

/** Takes a step on some windows; returns their divergence before it. @throws {RangeError} when it is no number */
async function takeStep(tuner: Tuner, batch: readonly TuningWindow[], rate: number): Promise<number> {
  const divergence = await tuner.addGradients(batch);
  if (!Number.isFinite(divergence)) throw new RangeError(`divergence is ${divergence} while tuning, must be finite`);
  tuner.parameters.step(rate);
  return divergence;
}
