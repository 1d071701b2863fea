// What the matrix-vector kernels do with their input before the product and with their output after it, so that a layer
// of a decode step is one dispatch.

/**
 * Attention over a sequence that was split, combined:
 *
 *     x[c] = sum over s of exp(m[s] - M) acc[s, c]  /  sum over s of exp(m[s] - M) l[s],   M = max over s of m[s]
 *
 * with m and l of the head c / headSize. Splits with l = 0 are ignored; where all are, x is 0. `partials` is f32
 * [tokens, splits * (channels + 2 * heads)]; with heads = channels / headSize a token's part holds
 *
 * | offset | content |
 * |---|---|
 * | s * channels + c | acc[s, c], not normalized |
 * | splits * channels + 2 * (s * heads + h) | m[s, h], the largest score |
 * | splits * channels + 2 * (s * heads + h) + 1 | l[s, h], the sum of exp(score - m[s, h]) |
 */
export interface AttentionInput {
  /** Which of {@linkcode Prologue}. */
  readonly kind: "attention";
  /** What the splits found, as above. */
  readonly partials: GPUBuffer;
  /** Parts of the sequence. */
  readonly splits: number;
  /** Channels of a head, a multiple of 16. */
  readonly headSize: number;
}

/** A vector in f32, or what it is made of; the kernels compute it themselves. Each is token by token. */
export type Prologue =
  /** x f32 [tokens, channels]. */
  | { readonly kind: "vector"; readonly x: GPUBuffer }
  /** x / sqrt(mean(x^2) + epsilon) * weight, with x f32 [tokens, channels] and weight f32 [channels]. */
  | { readonly kind: "rms_norm"; readonly x: GPUBuffer; readonly weight: GPUBuffer; readonly epsilon: number }
  | AttentionInput;

/** Input of a fused product. */
export type GemvInput =
  | Prologue
  /** Packed activations, see {@linkcode packActivations}, token by token. */
  | { readonly kind: "packed"; readonly activations: GPUBuffer };

/** What becomes of the product W x. y starts at an offset that is a multiple of 256 bytes. */
export type Epilogue =
  /** y = W x, f32 [tokens, rows]. */
  | { readonly kind: "store"; readonly y: GPUBufferBinding }
  /** y += W x, f32 [tokens, rows]: the residual of a layer. */
  | { readonly kind: "add"; readonly y: GPUBufferBinding }
  /** y = silu(G x) * (U x), f32 [tokens, rows / 2], where W is the rows of G, then those of U; rows in eights. */
  | { readonly kind: "silu_product"; readonly y: GPUBufferBinding };

const INPUT_KINDS = { vector: 0, rms_norm: 1, attention: 2 } as const;
const OUTPUT_KINDS = { store: 0, add: 1, silu_product: 2 } as const;

/** Values of the overrides that product/parts/input_values.wgsl names. */
export function inputConstants(input: Prologue, channels: number): Record<string, number> {
  const constants = { input_kind: INPUT_KINDS[input.kind], channels };
  if (input.kind === "rms_norm") return { ...constants, epsilon: input.epsilon };
  if (input.kind === "vector") return constants;
  // Four channels of one head are loaded at a time, four apart.
  const { headSize } = input;
  if (headSize % 16 !== 0) throw new RangeError(`headSize is ${headSize}, must be a multiple of 16`);
  return { ...constants, ...attentionConstants(input, channels) };
}

/**
 * Values of the overrides that product/parts/attention_values.wgsl names.
 *
 * @throws {RangeError} when there are no splits, or heads don't fill the channels
 */
export function attentionConstants({ splits, headSize }: AttentionInput, channels: number): Record<string, number> {
  if (!(Number.isInteger(splits) && splits > 0)) throw new RangeError(`splits is ${splits}, must be 1 or more`);
  if (!(headSize > 0 && headSize % 4 === 0 && channels % headSize === 0)) {
    throw new RangeError(`headSize is ${headSize}, must be a multiple of 4 that divides the ${channels} channels`);
  }
  return { splits, head_size: headSize };
}

/** The buffers `values` and `norm_weight` of product/parts/input_values.wgsl; only a norm reads the second. */
export function inputBuffers(input: Prologue): { readonly values: GPUBuffer; readonly norm_weight: GPUBuffer } {
  const values = input.kind === "attention" ? input.partials : input.x;
  return { values, norm_weight: input.kind === "rms_norm" ? input.weight : values };
}

/** Value of the override `output_kind`, see product/parts/outputs.wgsl. */
export function outputConstant({ kind }: Epilogue): number {
  return OUTPUT_KINDS[kind];
}

/** Rows that are multiplied for one element of y: a gate row and an up row, or one row. */
export function rowsPerOutput({ kind }: Epilogue): 1 | 2 {
  return kind === "silu_product" ? 2 : 1;
}

/**
 * Checks that a matrix can have this output.
 *
 * @throws {TypeError} when gate and up rows don't pair, or lie in different slabs
 */
export function checkOutput(output: Epilogue, rows: number, slabs: number): void {
  if (output.kind !== "silu_product") return;
  if (rows % 8 !== 0) throw new TypeError(`matrix has ${rows} rows, must have a multiple of 8 for silu_product`);
  if (slabs !== 1) throw new TypeError(`matrix has ${slabs} slabs, must have one for silu_product`);
}
