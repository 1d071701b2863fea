// The forward pass of a Llama-family model on the CPU: the reference that the GPU engine is checked against.
//
// Several sequences go through the linear layers together, one after the other in the rows of one matrix;
// attention keeps them apart. A layer goes stage by stage through {@linkcode STAGES}; the two halves of a stage are
// exported, because calibration looks at a stage's input and quantizes its matrices between them.
import { attend, type KeyValues } from "./attention.ts";
import type { ModelConfig } from "./config.ts";
import { type Stage, type StageInput, STAGES } from "./layer.ts";
import type { Layer, Linear, Model } from "./llama.ts";
import { exponentials, type MatMul, rowMajor } from "./matmul.ts";
import { refuseOtherRotation, rotateHeads, rotationOf } from "./rope.ts";

/** Consecutive tokens of one sequence that go through the model together. */
export interface Segment {
  readonly tokens: Uint32Array;
  /** Keys and values of the tokens before, one entry a layer; several segments may share them. */
  readonly prefix?: readonly KeyValues[];
}

/** Tokens of one or several sequences on their way through a layer. */
export interface LayerFlow {
  readonly config: ModelConfig;
  readonly layer: Layer;
  /** f32 [tokens, hidden]: the residual stream, updated in place. */
  readonly hidden: Float32Array;
  readonly lengths: readonly number[];
  /** Keys and values of the tokens before, for each sequence that has such. */
  readonly prefixes?: readonly (KeyValues | undefined)[];
  /** Where attention puts the keys and values of each sequence. */
  readonly keyValues: KeyValues[];
  readonly matmul: MatMul;
}

export interface ForwardResult {
  /** f32 [tokens of all segments, hidden], after the final norm. */
  readonly hidden: Float32Array;
  /** Keys and values of each segment (its prefix included), one entry a layer: cache[segment][layer]. */
  readonly cache: readonly (readonly KeyValues[])[];
}

/**
 * Runs segments through the model.
 *
 * @throws {RangeError} when a token lies outside the vocabulary, a sequence is longer than the context, or its first segment
 * was rotated otherwise than the whole is (`longrope`)
 */
export function forward(model: Model, segments: readonly Segment[], matmul: MatMul): ForwardResult {
  const { config, layers } = model;
  const cache: KeyValues[][] = segments.map(() => []);
  const lengths = segments.map(({ tokens }) => tokens.length);
  const hidden = embedTokens(config, model.embedding, segments);
  for (const [index, layer] of layers.entries()) {
    const prefixes = segments.map(({ prefix }) => prefix?.[index]);
    const keyValues = runLayer({ config, layer, hidden, lengths, prefixes, keyValues: [], matmul });
    keyValues.forEach((entry, segment) => cache[segment].push(entry));
  }
  return { hidden: rmsNorm(hidden, model.finalNorm, config.normEpsilon), cache };
}

export function runLayer(flow: LayerFlow): readonly KeyValues[] {
  let products: readonly Float32Array[] = [];
  for (const stage of STAGES) products = stageProducts(flow, stage, stageInput(flow, stage, products));
  return flow.keyValues;
}

/** Residual stream before the first layer: f32 [tokens, hidden]. @throws {RangeError} */
export function embedTokens(
  { hidden, vocabulary, context, rope }: ModelConfig,
  embedding: Float32Array,
  segments: readonly Segment[],
): Float32Array {
  const total = segments.reduce((sum, { tokens }) => sum + tokens.length, 0);
  const stream = new Float32Array(total * hidden);
  let at = 0;
  for (const { tokens, prefix } of segments) {
    const before = prefix?.[0]?.length ?? 0;
    const length = tokens.length + before;
    refuseOtherRotation(rope, before, length);
    if (length > context) throw new RangeError(`sequence has ${length} tokens, must have at most ${context}`);
    for (const token of tokens) {
      if (token >= vocabulary) throw new RangeError(`token is ${token}, must be below ${vocabulary}`);
      stream.set(embedding.subarray(token * hidden, (token + 1) * hidden), at);
      at += hidden;
    }
  }
  return stream;
}

/** What the input of a stage is made of: the residual stream, or the products of the stage before. */
const INPUTS: Readonly<Record<StageInput, (flow: LayerFlow, products: readonly Float32Array[]) => Float32Array>> = {
  attentionNorm: ({ config, layer, hidden }) => rmsNorm(hidden, layer.attentionNorm, config.normEpsilon),
  attention: (flow, [q, k, v]) => mixValues(flow, q, k, v),
  mlpNorm: ({ config, layer, hidden }) => rmsNorm(hidden, layer.mlpNorm, config.normEpsilon),
  siluProduct: ({ config: { intermediate }, matmul }, [gate, up]) => {
    const product = new Float32Array(gate.length);
    for (let first = 0; first < gate.length; first += intermediate) {
      const values = exponentials(matmul, gate.subarray(first, first + intermediate), 0, -1);
      for (let i = 0, at = first; i < values.length; i++, at++) product[at] = (gate[at] / (1 + values[i])) * up[at];
    }
    return product;
  },
};

/**
 * First half of a stage: the input of its linear layers, f32 [tokens, channels].
 *
 * @param products what {@linkcode stageProducts} gave for the stage before; none for the first
 */
export function stageInput(flow: LayerFlow, stage: Stage, products: readonly Float32Array[]): Float32Array {
  return INPUTS[stage.input](flow, products);
}

/**
 * Second half of a stage: the products of its linear layers, f32 [tokens, rows] each, for the next stage to go on from; none
 * where they went into the residual stream.
 */
export function stageProducts(flow: LayerFlow, stage: Stage, input: Float32Array): Float32Array[] {
  const { layer, hidden, matmul } = flow;
  const products = stage.linears.map((kind) => applyLinear(layer.linears[kind], input, matmul));
  if (!stage.joinsResidual) return products;
  for (const product of products) {
    for (let i = 0; i < hidden.length; i++) hidden[i] += product[i];
  }
  return [];
}

/** Norms of heads where there are any, rotation, attention of each sequence: f32 [tokens, heads * headSize]. */
function mixValues(flow: LayerFlow, queries: Float32Array, keys: Float32Array, v: Float32Array): Float32Array {
  const { config, layer, lengths, prefixes = [], keyValues, matmul } = flow;
  const { heads, keyValueHeads, headSize, rope, normEpsilon } = config;
  const q = layer.queryNorm ? rmsNorm(queries, layer.queryNorm, normEpsilon) : queries;
  const k = layer.keyNorm ? rmsNorm(keys, layer.keyNorm, normEpsilon) : keys;
  const mixed = new Float32Array(q.length);
  let first = 0;
  for (const [segment, count] of lengths.entries()) {
    const prefix = prefixes[segment];
    const start = prefix?.length ?? 0;
    const rotation = rotationOf(rope, headSize, start + count);
    for (let t = 0; t < count; t++) {
      rotateHeads(q, (first + t) * heads * headSize, heads, rotation, start + t);
      rotateHeads(k, (first + t) * keyValueHeads * headSize, keyValueHeads, rotation, start + t);
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
  return mixed;
}

/** y = W x + bias for every row of `input`: f32 [tokens, rows]. */
function applyLinear(linear: Linear, input: Float32Array, matmul: MatMul): Float32Array {
  const { rows, channels, weights, bias } = linear;
  const tokens = input.length / channels;
  const output = new Float32Array(tokens * rows);
  matmul(rowMajor(input, tokens, channels), rowMajor(weights, rows, channels), rowMajor(output, tokens, rows));
  if (bias) { for (let i = 0; i < output.length; i++) output[i] += bias[i % rows]; }
  return output;
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
