/**
 * What a CPU worker can do. It keeps one model or checkpoint and, for KL divergence, the reference's log-probabilities of the
 * windows that it is given (worker_pool.ts gives it the same ones every time).
 *
 * @module
 */
import type { Feedback } from "../quant/error_feedback.ts";
import { TILE_ROWS } from "../quant/format.ts";
import { quantizeMatrix, type Quantizer, type StoredTensor } from "../quant/quantize.ts";
import { advanceStage, calibrateStage, type CalibrationPart, finishLayer, type StageSums } from "./calibration.ts";
import { type Checkpoint, type LayerNorms, readLinear, readNorms } from "./checkpoint.ts";
import type { Linear, LinearKind, Model } from "./llama.ts";
import { type MatMul, rowMajor, transpose } from "./matmul.ts";
import { createMatmulSimd } from "./matmul_simd.ts";
import { type ChoiceItem, scoreChoices, scoreWindow, type WindowScore } from "./score.ts";
import type { TaskMessage, TaskReply } from "./worker_pool.ts";

/** A window to score. */
export interface WindowTask {
  /** Index of the window; the reference is kept by it. */
  readonly index: number;
  /** Its tokens, BOS first. */
  readonly tokens: Uint32Array;
  /** Whether to keep this window's log-probabilities as the reference, compare with them, or neither. */
  readonly reference: "keep" | "compare" | "none";
}

/** A matrix to quantize. */
export interface QuantizeTask {
  /** The matrix. */
  readonly linear: Linear;
  /** How it is quantized. */
  readonly quantizer: Quantizer;
  /** Error feedback of its input. */
  readonly feedback?: Feedback;
  /** Sums that correct the target: {@linkcode StageSums}. */
  readonly drift?: Float32Array;
  /** See {@linkcode StageSums}. */
  readonly lack?: Float32Array;
  /** The tiles to quantize, first and last + 1. */
  readonly tiles: readonly [number, number];
}

/** The tasks of a CPU worker, by name; each may be called once for a payload and returns what it computed. */
export interface CpuTasks {
  /** Takes the model that later tasks use. */
  setModel(model: Model): void;
  /** Scores a window. */
  scoreWindow(task: WindowTask): Promise<WindowScore>;
  /** Scores multiple-choice items: [item][continuation]. */
  scoreChoices(items: readonly ChoiceItem[]): Promise<number[][]>;
  /** Computes the inputs of a calibration stage and their sums. */
  calibrateStage(part: CalibrationPart): Promise<StageSums>;
  /** Computes the inputs of a calibration stage only. */
  advanceStage(part: CalibrationPart): Promise<void>;
  /** Takes calibration windows to the end of a layer. */
  finishLayer(part: CalibrationPart): Promise<void>;
  /** Quantizes tiles of a matrix. */
  quantize(task: QuantizeTask): Promise<StoredTensor>;
  /** Opens the checkpoint that later tasks read. */
  openCheckpoint(name: string): Promise<void>;
  /** Reads a linear layer. */
  readLinear(task: { readonly layer: number; readonly kind: LinearKind }): Promise<Linear>;
  /** Reads the norms of a layer. */
  readNorms(layer: number): Promise<LayerNorms>;
}

const matmulReady = createMatmulSimd();
let model: Model | undefined;
let checkpoint: Checkpoint | undefined;
const references = new Map<number, Float32Array>();

function loaded(): Model {
  if (!model) throw new TypeError("worker has no model, must be given one first");
  return model;
}

function opened(): Checkpoint {
  if (!checkpoint) throw new TypeError("worker has no checkpoint, must be told to open one first");
  return checkpoint;
}

const tasks: CpuTasks = {
  setModel(next) {
    model = next;
  },

  async scoreWindow({ index, tokens, reference }) {
    const current = loaded();
    const matmul = await matmulReady;
    if (reference === "keep") {
      const keep = new Float32Array((tokens.length - 1) * current.config.vocabulary);
      references.set(index, keep);
      return scoreWindow(current, tokens, matmul, { keep });
    }
    if (reference === "none") return scoreWindow(current, tokens, matmul);
    const known = references.get(index);
    if (!known) throw new TypeError(`window ${index} has no reference, must be scored by the reference first`);
    return scoreWindow(current, tokens, matmul, { reference: known });
  },

  async scoreChoices(items) {
    return scoreChoices(loaded(), items, await matmulReady);
  },

  async calibrateStage(part) {
    return calibrateStage(part, await matmulReady);
  },

  async advanceStage(part) {
    advanceStage(part, await matmulReady);
  },

  async finishLayer(part) {
    finishLayer(part, await matmulReady);
  },

  async quantize(task) {
    const { linear: { weights, rows, channels }, quantizer, feedback, tiles } = task;
    if (!feedback) return quantizeMatrix(weights, rows, channels, quantizer, undefined, tiles);
    const correlation = task.drift && correlationOf(task, await matmulReady);
    const input = { feedback, ...(correlation && { correlation }) };
    return quantizeMatrix(weights, rows, channels, quantizer, input, tiles);
  },

  async openCheckpoint(name) {
    // Only here: the readers of all formats take longer to load than the rest of a worker.
    const { openModel } = await import("./load.ts");
    checkpoint = await openModel(name);
  },

  readLinear: ({ layer, kind }) => readLinear(opened(), layer, kind),

  readNorms: (layer) => readNorms(opened(), layer),
};

/** w sum of (x - x') x'ᵀ + sum of r x'ᵀ for the rows of some tiles (quant/target.ts). */
function correlationOf({ linear, drift, lack, tiles }: QuantizeTask, matmul: MatMul): Float32Array {
  const { weights, rows, channels } = linear;
  const first = tiles[0] * TILE_ROWS;
  const count = Math.min(rows, tiles[1] * TILE_ROWS) - first;
  const correlation = new Float32Array(count * channels);
  matmul(
    rowMajor(weights, count, channels, first * channels),
    transpose(rowMajor(drift!, channels, channels)),
    rowMajor(correlation, count, channels),
  );
  if (lack) { for (let i = 0; i < correlation.length; i++) correlation[i] += lack[first * channels + i]; }
  return correlation;
}

// The compiler takes this file for a page's; here globalThis is a worker's scope.
const scope = globalThis as unknown as Worker;

scope.onmessage = async ({ data: { id, name, payload } }: MessageEvent<TaskMessage>) => {
  let reply: TaskReply;
  const moved: ArrayBuffer[] = [];
  try {
    const result = await (tasks[name] as (payload: unknown) => unknown)(payload);
    reply = { id, result };
    // Nobody else has what was read.
    if (name === "readLinear") moved.push((result as Linear).weights.buffer as ArrayBuffer);
  } catch (error) {
    const { name, message } = error as Error;
    reply = { id, error: { name, message } };
  }
  scope.postMessage(reply, moved);
};
