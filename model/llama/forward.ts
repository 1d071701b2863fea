/**
 * The forward pass of a Llama-family model on the CPU: the reference that the GPU engine is checked against.
 *
 * Several sequences go through the linear layers together, one after the other in the rows of one matrix;
 * attention keeps them apart. The four steps of a layer are exported one by one, because calibration quantizes
 * a layer's matrices between them.
 *
 * @module
 */
import { attend, type KeyValues } from "./attention.ts";
import type { ModelConfig } from "./config.ts";
import type { Layer, Linear, Model } from "./llama.ts";
import { type MatMul, rowMajor } from "./matmul.ts";
import { ropeFrequencies, rotateHeads } from "./rope.ts";

/** Consecutive tokens of one sequence that go through the model together. */
export interface Segment {
  /** The tokens. */
  readonly tokens: Uint32Array;
  /** Keys and values of the tokens before, one entry a layer; several segments may share them. */
  readonly prefix?: readonly KeyValues[];
}

/** What {@linkcode forward} returns. */
export interface ForwardResult {
  /** f32 [tokens of all segments, hidden], after the final norm. */
  readonly hidden: Float32Array;
  /** Keys and values of each segment (its prefix included), one entry a layer: cache[segment][layer]. */
  readonly cache: readonly (readonly KeyValues[])[];
}

/**
 * Runs segments through the model.
 *
 * @throws {RangeError} when a token lies outside the vocabulary or a sequence is longer than the context
 */
export function forward(model: Model, segments: readonly Segment[], matmul: MatMul): ForwardResult {
  const { config, layers } = model;
  const cache: KeyValues[][] = segments.map(() => []);
  const hidden = embedTokens(config, model.embedding, segments);
  for (const [index, layer] of layers.entries()) {
    const normed = attentionInput(config, layer, hidden);
    const prefixes = segments.map(({ prefix }) => prefix?.[index]);
    const { mixed, keyValues } = attentionMix(config, layer, normed, segmentLengths(segments), matmul, prefixes);
    keyValues.forEach((entry, segment) => cache[segment].push(entry));
    addLinear(hidden, layer.linears.o_proj, mixed, matmul);
    addLinear(hidden, layer.linears.down_proj, mlpMix(layer, mlpInput(config, layer, hidden), matmul), matmul);
  }
  return { hidden: rmsNorm(hidden, model.finalNorm, config.normEpsilon), cache };
}

/** Tokens of each segment. */
export function segmentLengths(segments: readonly Segment[]): number[] {
  return segments.map(({ tokens }) => tokens.length);
}

/** Residual stream before the first layer: f32 [tokens, hidden]. @throws {RangeError} */
export function embedTokens(
  { hidden, vocabulary, context }: ModelConfig,
  embedding: Float32Array,
  segments: readonly Segment[],
): Float32Array {
  const total = segmentLengths(segments).reduce((sum, length) => sum + length, 0);
  const stream = new Float32Array(total * hidden);
  let at = 0;
  for (const { tokens, prefix } of segments) {
    const length = tokens.length + (prefix?.[0]?.length ?? 0);
    if (length > context) throw new RangeError(`sequence has ${length} tokens, must have at most ${context}`);
    for (const token of tokens) {
      if (token >= vocabulary) throw new RangeError(`token is ${token}, must be below ${vocabulary}`);
      stream.set(embedding.subarray(token * hidden, (token + 1) * hidden), at);
      at += hidden;
    }
  }
  return stream;
}

/** Step 1 of a layer: the input of q, k and v, f32 [tokens, hidden]. */
export function attentionInput(config: ModelConfig, layer: Layer, hidden: Float32Array): Float32Array {
  return rmsNorm(hidden, layer.attentionNorm, config.normEpsilon);
}

/** Step 2: attention, whose result is the input of o, f32 [tokens, heads * headSize]. */
export function attentionMix(
  config: ModelConfig,
  { linears, queryNorm, keyNorm }: Layer,
  normed: Float32Array,
  lengths: readonly number[],
  matmul: MatMul,
  prefixes: readonly (KeyValues | undefined)[] = [],
): { mixed: Float32Array; keyValues: KeyValues[] } {
  const { heads, keyValueHeads, headSize, rope, normEpsilon } = config;
  const normHeads = (values: Float32Array, weight: Float32Array | undefined) =>
    weight ? rmsNorm(values, weight, normEpsilon) : values;
  const q = normHeads(applyLinear(linears.q_proj, normed, matmul), queryNorm);
  const k = normHeads(applyLinear(linears.k_proj, normed, matmul), keyNorm);
  const v = applyLinear(linears.v_proj, normed, matmul);
  const frequencies = ropeFrequencies(rope, headSize);
  const mixed = new Float32Array(q.length);
  const keyValues: KeyValues[] = [];
  let first = 0;
  for (const [segment, count] of lengths.entries()) {
    const prefix = prefixes[segment];
    const start = prefix?.length ?? 0;
    for (let t = 0; t < count; t++) {
      rotateHeads(q, (first + t) * heads * headSize, heads, frequencies, start + t);
      rotateHeads(k, (first + t) * keyValueHeads * headSize, keyValueHeads, frequencies, start + t);
    }
    const part = (values: Float32Array, width: number) => values.subarray(first * width, (first + count) * width);
    const entry = {
      length: start + count,
      keys: concatenate(prefix?.keys, part(k, keyValueHeads * headSize)),
      values: concatenate(prefix?.values, part(v, keyValueHeads * headSize)),
    };
    attend(config, matmul, part(q, heads * headSize), entry, part(mixed, heads * headSize));
    keyValues.push(entry);
    first += count;
  }
  return { mixed, keyValues };
}

/** Step 3: the input of gate and up, f32 [tokens, hidden]; `hidden` already holds attention's output. */
export function mlpInput(config: ModelConfig, layer: Layer, hidden: Float32Array): Float32Array {
  return rmsNorm(hidden, layer.mlpNorm, config.normEpsilon);
}

/** Step 4: silu(gate) * up, the input of down, f32 [tokens, intermediate]. */
export function mlpMix({ linears }: Layer, normed: Float32Array, matmul: MatMul): Float32Array {
  const gate = applyLinear(linears.gate_proj, normed, matmul);
  const up = applyLinear(linears.up_proj, normed, matmul);
  for (let i = 0; i < gate.length; i++) gate[i] = (gate[i] / (1 + Math.exp(-gate[i]))) * up[i];
  return gate;
}

/** y = W x + bias for every row of `input`: f32 [tokens, rows]. */
export function applyLinear(linear: Linear, input: Float32Array, matmul: MatMul): Float32Array {
  const { rows, channels, weights, bias } = linear;
  const tokens = input.length / channels;
  const output = new Float32Array(tokens * rows);
  matmul(rowMajor(input, tokens, channels), rowMajor(weights, rows, channels), rowMajor(output, tokens, rows));
  if (bias) { for (let i = 0; i < output.length; i++) output[i] += bias[i % rows]; }
  return output;
}

/** Adds a linear layer's output to the residual stream. */
export function addLinear(hidden: Float32Array, linear: Linear, input: Float32Array, matmul: MatMul): void {
  const output = applyLinear(linear, input, matmul);
  for (let i = 0; i < hidden.length; i++) hidden[i] += output[i];
}

/** Logits of some rows of the final hidden state: f32 [tokens, vocabulary]. */
export function logitsOf({ config, head }: Model, hidden: Float32Array, matmul: MatMul): Float32Array {
  return applyLinear({ weights: head, rows: config.vocabulary, channels: config.hidden }, hidden, matmul);
}

/** x / sqrt(mean(x²) + epsilon) * weight, row by row. */
function rmsNorm(input: Float32Array, weight: Float32Array, epsilon: number): Float32Array {
  const width = weight.length;
  const output = new Float32Array(input.length);
  for (let row = 0; row < input.length; row += width) {
    let sum = 0;
    for (let i = 0; i < width; i++) sum += input[row + i] * input[row + i];
    const factor = 1 / Math.sqrt(sum / width + epsilon);
    for (let i = 0; i < width; i++) output[row + i] = input[row + i] * factor * weight[i];
  }
  return output;
}

function concatenate(prefix: Float32Array | undefined, own: Float32Array): Float32Array {
  if (!prefix) return own;
  const all = new Float32Array(prefix.length + own.length);
  all.set(prefix);
  all.set(own, prefix.length);
  return all;
}
