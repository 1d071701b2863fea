// A worker of the CPU: it scores windows and choices, takes calibration text through layers and quantizes matrices. It
// keeps one model and, for KL divergence, the reference's log-probabilities of the windows that it is given (a pool
// gives it the same ones every time).
import { TILE_ROWS } from "../../quant/format.ts";
import { fitStripScales } from "../../quant/baselines/strip_scales.ts";
import { dequantizeStored, quantizeMatrix } from "../../quant/quantize.ts";
import { toF16 } from "../files/numbers.ts";
import { scoreChoices, scoreWindow } from "../evaluate/score.ts";
import type { ScoreTasks } from "../evaluate/scorer.ts";
import { createCollector } from "../host/garbage.ts";
import { release, releaseArrays } from "../host/release.ts";
import { serveTasks } from "../host/worker_pool.ts";
import type { Model } from "../llama/llama.ts";
import { type MatMul, rowMajor, transpose } from "../llama/matmul.ts";
import { createMatmulSimd } from "../llama/matmul_simd.ts";
import { advanceStage, sumStage } from "../quantize/calibration.ts";
import type { QuantizeTask, QuantizeTasks } from "../quantize/quantize_tasks.ts";

export type CpuTasks = ScoreTasks & QuantizeTasks;

const matmulReady = createMatmulSimd();
let model: Model | undefined;
const references = new Map<number, Float32Array>();
// Parts of matrices leave much beside them, in all workers at once.
const collect = createCollector();

function loaded(): Model {
  if (!model) throw new TypeError("worker has no model, must be given one first");
  return model;
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

  async advanceStage(part) {
    advanceStage(part, await matmulReady);
  },

  async sumStage(part) {
    return sumStage(part, await matmulReady);
  },

  async quantize(task) {
    const { linear, quantizer, feedback, diagonal, tiles } = task;
    const correlation = task.drift && correlationOf(task, await matmulReady);
    const stored = quantizeMatrix(linear, quantizer, {
      tiles,
      ...(feedback && { feedback }),
      ...(diagonal && { diagonal }),
      ...(correlation && { correlation }),
    });
    releaseArrays(linear);
    collect();
    return stored;
  },

  fitStrips({ settings: { layout, search }, matrix, importance, fourBit }) {
    const { scales } = fitStripScales(layout, matrix.weights, matrix.rows, importance, search, fourBit);
    releaseArrays(matrix);
    collect();
    return scales;
  },

  decodeHalf(stored) {
    const decoded = dequantizeStored(stored);
    const halves = toF16("decoded matrix", decoded);
    // In f32 it would be there until the collector comes, in each worker.
    release(decoded);
    collect();
    return halves;
  },
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

// Nobody else has what was decoded.
serveTasks(tasks, (name, result) => name === "decodeHalf" ? [(result as Float16Array<ArrayBuffer>).buffer] : []);
