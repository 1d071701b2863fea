// All quantizers, and one entrance to them.
import { Q2K } from "./baselines/quantize_q2k.ts";
import { STRIPS } from "./baselines/strips.ts";
import type { BitTerms } from "./bits.ts";
import { tilesPerColumn } from "./format.ts";
import type { Matrix, Part, QuantizerKind } from "./quantizer.ts";
import { TWOBIT } from "./twobit.ts";

export interface QuantizerKinds {
  readonly twobit: typeof TWOBIT;
  /** RTN, GPTQ, Greenbit-like and the paper's layout. */
  readonly strips: typeof STRIPS;
  /** llama.cpp's Q2_K. */
  readonly q2_k: typeof Q2K;
}

const KINDS: QuantizerKinds = { twobit: TWOBIT, strips: STRIPS, q2_k: Q2K };

/** A way of quantizing, as data. */
export type Quantizer = {
  [K in keyof QuantizerKinds]: QuantizerKinds[K] extends QuantizerKind<infer Q, infer _> ? Q : never;
}[keyof QuantizerKinds];

/** A matrix as it is stored, by the kind of its quantizer. */
export type StoredTensor = {
  [K in keyof QuantizerKinds]: {
    readonly kind: K;
    readonly tensor: QuantizerKinds[K] extends QuantizerKind<infer _, infer T> ? T : never;
  };
}[keyof QuantizerKinds];

/** What a kind does. The compiler can't see that each gets its own quantizers and tensors. */
function kindOf({ kind }: { readonly kind: keyof QuantizerKinds }): QuantizerKind<Quantizer, StoredTensor["tensor"]> {
  return KINDS[kind] as unknown as QuantizerKind<Quantizer, StoredTensor["tensor"]>;
}

/** Tiles of a matrix that can be quantized by themselves: all of them, or for other layouts the matrix as a whole. */
export function independentParts(rows: number, quantizer: Quantizer, tilesPerPart: number): [number, number][] {
  const tiles = tilesPerColumn(rows);
  if (!kindOf(quantizer).hasIndependentTiles(quantizer)) return [[0, tiles]];
  return Array.from({ length: Math.ceil(tiles / tilesPerPart) }, (_, i) => [
    i * tilesPerPart,
    Math.min(tiles, (i + 1) * tilesPerPart),
  ]);
}

/**
 * Quantizes a matrix, or one of its {@linkcode independentParts}.
 *
 * @throws {TypeError | RangeError} for a matrix that is empty, misshapen or not finite
 */
export function quantizeMatrix(matrix: Matrix, quantizer: Quantizer, part: Part = {}): StoredTensor {
  return { kind: quantizer.kind, tensor: kindOf(quantizer).quantize(matrix, quantizer, part) } as StoredTensor;
}

export function joinStored(parts: readonly StoredTensor[]): StoredTensor {
  const [{ kind }] = parts;
  return { kind, tensor: kindOf({ kind }).join(parts.map(({ tensor }) => tensor)) } as StoredTensor;
}

/** Tiles `first` .. `end` - 1 of a stored matrix, as a matrix in memory of its own; `first` is even. */
export function sliceStored({ kind, tensor }: StoredTensor, first: number, end: number): StoredTensor {
  const planes = Object.entries(kindOf({ kind }).slice(tensor, first, end))
    .map(([name, plane]) => [name, ArrayBuffer.isView(plane) ? (plane as Uint8Array).slice() : plane]);
  return { kind, tensor: Object.fromEntries(planes) } as StoredTensor;
}

/** Decodes a stored matrix: f32 [rows, channels]. */
export function dequantizeStored(stored: StoredTensor): Float32Array<ArrayBuffer> {
  return kindOf(stored).dequantize(stored.tensor);
}

/** Bytes of all arrays of what is stored. */
export function storedBytes({ tensor }: StoredTensor): number {
  return Object.values(tensor).reduce((sum, plane) => sum + (ArrayBuffer.isView(plane) ? plane.byteLength : 0), 0);
}

/** Bits of a matrix that a quantizer stores, from its shape alone. */
export function quantizedBits(rows: number, channels: number, quantizer: Quantizer): BitTerms {
  return kindOf(quantizer).bits(rows, channels, quantizer);
}
