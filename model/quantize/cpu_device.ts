// Quantizing on the CPU: workers share the layer and the calibration text.
import type { Feedback } from "../../quant/error_feedback.ts";
import { independentParts, joinStored, type Quantizer } from "../../quant/quantize.ts";
import { type Checkpoint, readLinear, readNorms } from "../files/checkpoint.ts";
import { moveToShared, shareDeep } from "../host/shared.ts";
import { LINEAR_KINDS, type LinearKind } from "../llama/layer.ts";
import type { Layer, Linear } from "../llama/llama.ts";
import { type Calibrator, createCalibrator, type TotalSums } from "./calibrator.ts";
import { decodeLayer } from "./quantize_layers.ts";
import type { QuantizePool, QuantizeTask } from "./quantize_tasks.ts";
import type { LayerRun, QuantizingDevice, QuantizingRun, StageJob, StoredLayer } from "./quantizing_device.ts";

/** Tiles of a matrix that one task quantizes: 128 rows. */
const PART_TILES = 8;

export function cpuDevice(pool: QuantizePool): QuantizingDevice {
  return {
    openLayers: (checkpoint) =>
      Promise.resolve({
        config: checkpoint.config,
        readLayer: (index) => readSharedLayer(checkpoint, index),
        [Symbol.dispose]() {},
      }),
    // deno-lint-ignore require-await -- what is wrong with the calibration rejects the promise
    async start(config, calibration) {
      if (calibration?.tuning) throw whyNotTuned();
      const calibrator = calibration && createCalibrator(pool, config, calibration);
      return startOnCpu(pool, calibrator, calibration?.keepsInputs);
    },
  };
}

/**
 * Begins to quantize a model with the calibration text of a calibrator, which is before the first layer.
 *
 * @param keepsInputs see {@linkcode Calibration}
 */
export function startOnCpu(pool: QuantizePool, calibrator?: Calibrator, keepsInputs = false): QuantizingRun {
  return {
    isCalibrated: calibrator !== undefined,
    startLayer: (index, original) =>
      Promise.resolve(startLayer({ pool, calibrator, keepsInputs, index, original: shareDeep(original) })),
    tune: () => Promise.reject(whyNotTuned()),
    [Symbol.dispose]() {},
  };
}

/** What is said where a model is to be tuned on the CPU. */
export function whyNotTuned(): Error {
  return new Error("models are not tuned on the CPU, must be quantized on a GPU (--device gpu) or without tuning");
}

/** Reads a layer into memory that workers share, matrix by matrix, so that one of them at a time is there twice. */
async function readSharedLayer(checkpoint: Checkpoint, index: number): Promise<Layer> {
  const linears: Partial<Record<LinearKind, Linear>> = {};
  for (const kind of LINEAR_KINDS) {
    const linear = await readLinear(checkpoint, index, kind);
    linears[kind] = { ...linear, weights: moveToShared(linear.weights) };
  }
  return { linears: linears as Layer["linears"], ...await readNorms(checkpoint, index) };
}

interface LayerWork {
  readonly pool: QuantizePool;
  readonly calibrator: Calibrator | undefined;
  readonly keepsInputs: boolean;
  readonly index: number;
  readonly original: Layer;
}

function startLayer({ pool, calibrator, keepsInputs, index, original }: LayerWork): LayerRun {
  let quantized = original;
  const pair = () => ({ index, original, quantized });
  const place = (stored: StoredLayer) => {
    if (calibrator && !keepsInputs) quantized = decodeLayer(quantized, stored);
  };
  return {
    async advance(stage) {
      await calibrator?.advance(pair(), stage);
    },
    async quantize(job) {
      const isMeasured = job.feedback !== undefined || job.weighsChannels;
      const sums = isMeasured ? await calibrator?.sumStage(pair(), job.stage) : undefined;
      if (sums) job.onHessian?.(sums.gram);
      const stored = await quantizeStage(pool, original, job, sums);
      place(stored);
      return stored;
    },
    restore: (stored) => Promise.resolve(place(stored)),
    [Symbol.dispose]() {},
  };
}

/** Quantizes the matrices of a stage, in parts that the workers share. */
async function quantizeStage(
  pool: QuantizePool,
  { linears }: Layer,
  { quantizers, feedback: settings, weighsChannels }: StageJob,
  sums: TotalSums | undefined,
): Promise<StoredLayer> {
  const feedback = settings && sums && shareFeedback(sums.prepare(settings));
  const diagonal = weighsChannels && sums ? diagonalOf(sums.gram) : undefined;
  return await quantizeInParts(pool, quantizers, linears, (quantizer, linear, tiles) => {
    const { drift, lack } = quantizer.correctTarget && sums || {};
    const input = quantizer.feedback && feedback && { feedback, ...(drift && { drift }), ...(lack && { lack }) };
    return { linear, quantizer, tiles, ...input, ...(quantizer.weighsChannels && diagonal && { diagonal }) };
  });
}

/** Quantizes matrices of a layer in parts that the workers share; `taskOf` makes the task of some tiles. */
export async function quantizeInParts(
  pool: QuantizePool,
  quantizers: StageJob["quantizers"],
  linears: Layer["linears"],
  taskOf: (quantizer: Quantizer, linear: Linear, tiles: readonly [number, number]) => QuantizeTask,
): Promise<StoredLayer> {
  const tasks = [...quantizers].flatMap(([kind, quantizer]) =>
    independentParts(linears[kind].rows, quantizer, PART_TILES)
      .map((tiles) => ({ kind, task: taskOf(quantizer, linears[kind], tiles) }))
  );
  const parts = await pool.map("quantize", tasks.map(({ task }) => task));
  return new Map(
    Array.from(quantizers.keys(), (kind) => [kind, joinStored(parts.filter((_, i) => tasks[i].kind === kind))]),
  );
}

function diagonalOf(gram: Float64Array): Float64Array {
  const size = Math.sqrt(gram.length);
  return Float64Array.from({ length: size }, (_, i) => gram[i * size + i]);
}

function shareFeedback(feedback: Feedback): Feedback {
  const coefficients = new Float64Array(new SharedArrayBuffer(feedback.coefficients.byteLength));
  coefficients.set(feedback.coefficients);
  return { ...feedback, coefficients };
}
