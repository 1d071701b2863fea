// Calibration: the inputs of a layer's matrices on calibration text, and what quantization needs to know of them.
//
// The residual stream of all calibration windows lies in shared memory and goes through the model one layer at a time;
// a layer's matrices are quantized in four stages, each seeing inputs made by what was quantized before it. Where
// targets are corrected, a second stream goes through the unquantized model alongside.
import type { ModelConfig } from "../llama/config.ts";
import { stageInput, stageProducts } from "../llama/forward.ts";
import { STAGES } from "../llama/layer.ts";
import type { Layer } from "../llama/llama.ts";
import { type MatMul, rowMajor, transpose } from "../llama/matmul.ts";

/** Calibration windows on their way through one model; arrays in shared memory, updated in place. */
export interface Stream {
  readonly layer: Layer;
  /** f32 [tokens, hidden]: the residual stream. */
  readonly hidden: Float32Array;
  /** f32 [tokens, width of the input]: the input of the stage that they have come to; as wide as the widest. */
  readonly input: Float32Array;
}

/** Some windows of the calibration text in one stage. */
export interface CalibrationPart {
  readonly config: ModelConfig;
  /** Index of {@linkcode STAGES}, or how many there are. */
  readonly stage: number;
  /** Tokens of each window. */
  readonly lengths: readonly number[];
  /** Through the model whose earlier matrices are quantized. */
  readonly quantized: Stream;
  /** Through the unquantized model. */
  readonly original?: Stream;
}

/** Sums over the tokens of a stage's inputs x' (quantized) and x (original). */
export interface StageSums {
  /** f32 [channels, channels]: sum of x' x'ᵀ. */
  readonly gram: Float32Array;
  /** f32 [channels, channels]: sum of (x - x') x'ᵀ. */
  readonly drift?: Float32Array;
  /** f32 [hidden, channels]: sum of r x'ᵀ, r what the residual stream lacks; where the stage writes to it. */
  readonly lack?: Float32Array;
}

/**
 * Takes the streams through the matrices of the stage before to the input of `stage`'s, or, with the number of stages,
 * through a layer's last matrix.
 */
export function advanceStage(part: CalibrationPart, matmul: MatMul): void {
  const { config, stage, lengths, quantized, original } = part;
  for (const stream of original ? [quantized, original] : [quantized]) {
    const { layer, hidden, input } = stream;
    const flow = { config, layer, hidden, lengths, keyValues: [], matmul };
    const products = stage === 0 ? [] : stageProducts(flow, STAGES[stage - 1], inputOf(part, stream, stage - 1));
    if (stage < STAGES.length) input.set(stageInput(flow, STAGES[stage], products));
  }
}

/** Sums a stage's inputs, once the streams have come there. */
export function sumStage(part: CalibrationPart, matmul: MatMul): StageSums {
  const { config, stage, quantized, original } = part;
  const tokens = quantized.hidden.length / config.hidden;
  const x = inputOf(part, quantized, stage);
  const gram = gramMatrix(x, tokens, matmul);
  if (!original) return { gram };
  const sums = { gram, drift: correlate(subtract(inputOf(part, original, stage), x), x, tokens, matmul) };
  if (!STAGES[stage].joinsResidual) return sums;
  return { ...sums, lack: correlate(subtract(original.hidden, quantized.hidden), x, tokens, matmul) };
}

/** The input of the stage that a stream has come to, f32 [tokens, channels]. */
function inputOf({ config }: CalibrationPart, { layer, hidden, input }: Stream, stage: number): Float32Array {
  const { channels } = layer.linears[STAGES[stage].linears[0]];
  return input.subarray(0, (hidden.length / config.hidden) * channels);
}

/** Rows of a Gram matrix that are computed together. */
const GRAM_ROWS = 128;

/** Sum over tokens of x xᵀ: f32 [width, width]. Only the upper triangle is computed; the lower one mirrors it. */
function gramMatrix(x: Float32Array, tokens: number, matmul: MatMul): Float32Array {
  const width = x.length / tokens;
  const gram = new Float32Array(width * width);
  const view = (first: number, end: number) => ({
    ...transpose(rowMajor(x, tokens, width)),
    offset: first,
    rows: end - first,
  });
  for (let first = 0; first < width; first += GRAM_ROWS) {
    const end = Math.min(width, first + GRAM_ROWS);
    const target = { ...rowMajor(gram, end - first, width - first), offset: first * width + first, rowStride: width };
    matmul(view(first, end), view(first, width), target);
  }
  for (let i = 0; i < width; i++) {
    for (let j = 0; j < i; j++) gram[i * width + j] = gram[j * width + i];
  }
  return gram;
}

/** Sum over tokens of a bᵀ: f32 [width of a, width of b]. */
function correlate(a: Float32Array, b: Float32Array, tokens: number, matmul: MatMul): Float32Array {
  const [rows, columns] = [a.length / tokens, b.length / tokens];
  const sum = new Float32Array(rows * columns);
  matmul(
    transpose(rowMajor(a, tokens, rows)),
    transpose(rowMajor(b, tokens, columns)),
    rowMajor(sum, rows, columns),
  );
  return sum;
}

function subtract(a: Float32Array, b: Float32Array): Float32Array {
  const difference = new Float32Array(a.length);
  for (let i = 0; i < a.length; i++) difference[i] = a[i] - b[i];
  return difference;
}
