/**
 * Calibration: the inputs of a layer's matrices on calibration text, and the Hessians of those inputs.
 *
 * The residual stream of all calibration windows lies in shared memory and goes through the model one layer at a time;
 * a layer's matrices are quantized in four stages, each seeing inputs made by what was quantized before it.
 *
 * @module
 */
import { addLinear, attentionInput, attentionMix, mlpInput, mlpMix } from "./forward.ts";
import type { ModelConfig } from "./config.ts";
import type { Layer, LinearKind } from "./llama.ts";
import { type MatMul, rowMajor, transpose } from "./matmul.ts";

/** The stages of a layer: matrices that have the same input, in the order in which they are quantized. */
export const STAGES: readonly (readonly LinearKind[])[] = [
  ["q_proj", "k_proj", "v_proj"],
  ["o_proj"],
  ["gate_proj", "up_proj"],
  ["down_proj"],
];

/** Some windows of the calibration text on their way through a layer; arrays in shared memory, updated in place. */
export interface CalibrationPart {
  readonly config: ModelConfig;
  /** The layer, its matrices of earlier stages already quantized. */
  readonly layer: Layer;
  /** Index of {@linkcode STAGES}. */
  readonly stage: number;
  /** Tokens of each window. */
  readonly lengths: readonly number[];
  /** f32 [tokens, hidden]: the residual stream. */
  readonly hidden: Float32Array;
  /** f32 [tokens, widest input]: the input of the stage's matrices, for the next stage to go on from. */
  readonly input: Float32Array;
}

/**
 * Computes the input of a stage's matrices and the sum of x xᵀ over it.
 *
 * @returns f32 [channels, channels]
 */
export function calibrateStage(part: CalibrationPart, matmul: MatMul): Float32Array {
  const { config, layer, stage, lengths, hidden, input } = part;
  const tokens = hidden.length / config.hidden;
  const previous = (channels: number) => input.subarray(0, tokens * channels);
  let values: Float32Array;
  switch (stage) {
    case 0:
      values = attentionInput(config, layer, hidden);
      break;
    case 1:
      values = attentionMix(config, layer, previous(config.hidden), lengths, matmul).mixed;
      break;
    case 2:
      addLinear(hidden, layer.linears.o_proj, previous(layer.linears.o_proj.channels), matmul);
      values = mlpInput(config, layer, hidden);
      break;
    default:
      values = mlpMix(layer, previous(config.hidden), matmul);
  }
  input.set(values);
  return gramMatrix(values, tokens, matmul);
}

/** Ends a layer: adds the output of its last matrix to the residual stream. */
export function finishLayer({ layer, hidden, input, config }: CalibrationPart, matmul: MatMul): void {
  const { down_proj } = layer.linears;
  const tokens = hidden.length / config.hidden;
  addLinear(hidden, down_proj, input.subarray(0, tokens * down_proj.channels), matmul);
}

function gramMatrix(values: Float32Array, tokens: number, matmul: MatMul): Float32Array {
  const channels = values.length / tokens;
  const columns = transpose(rowMajor(values, tokens, channels));
  const gram = new Float32Array(channels * channels);
  matmul(columns, columns, rowMajor(gram, channels, channels));
  return gram;
}
