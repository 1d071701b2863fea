// Conversions between the element types of checkpoints and f32.
import { findNotFinite } from "../../quant/check.ts";
import { clipText } from "../host/quote_text.ts";
import { type Dtype, DTYPE_BYTES } from "./safetensors.ts";

/** Dtypes that hold weights. */
export const WEIGHT_DTYPES: readonly Dtype[] = ["F32", "F16", "BF16"];

/**
 * Decodes the bytes of a weight tensor to f32; every F16 and BF16 value is exact in f32.
 *
 * @throws {TypeError} when the dtype doesn't hold weights
 */
export function decodeWeights(bytes: Uint8Array<ArrayBuffer>, dtype: Dtype): Float32Array<ArrayBuffer> {
  const { buffer, byteOffset, byteLength } = bytes;
  if (dtype === "F32") return new Float32Array(buffer, byteOffset, byteLength / 4);
  const values = new Float32Array(byteLength / DTYPE_BYTES[dtype]);
  decodeWeightsInto(bytes, dtype, values);
  return values;
}

/**
 * Decodes bytes of a weight tensor to the first of `values`.
 *
 * @throws {TypeError} when the dtype doesn't hold weights
 */
export function decodeWeightsInto(
  { buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>,
  dtype: Dtype,
  values: Float32Array<ArrayBuffer>,
): void {
  switch (dtype) {
    case "F32":
      return values.set(new Float32Array(buffer, byteOffset, byteLength / 4));
    case "F16": {
      const halves = new Float16Array(buffer, byteOffset, byteLength / 2);
      // One by one, since set takes eight times as long: it doesn't convert by the processor's instruction.
      for (let i = 0; i < halves.length; i++) values[i] = halves[i];
      return;
    }
    case "BF16": {
      const halves = new Uint16Array(buffer, byteOffset, byteLength / 2);
      const words = new Uint32Array(values.buffer, values.byteOffset, halves.length);
      for (let i = 0; i < halves.length; i++) words[i] = halves[i] << 16;
      return;
    }
    default:
      throw new TypeError(`dtype is ${dtype}, must be one of ${WEIGHT_DTYPES.join(", ")}`);
  }
}

/** Rounds weights to f16. @throws {RangeError} for one that is NaN or beyond f16 */
export function toF16(name: string, values: ArrayLike<number>): Float16Array<ArrayBuffer> {
  return checkHalves(name, new Float16Array(values));
}

/** Weights that are decoded at a time on the way to f16: the processor's cache holds them. */
const PART_WEIGHTS = 2 ** 16;

/**
 * Decodes the bytes of a tensor of finite weights to f16; those of F16 are not copied.
 *
 * @throws {RangeError} for a weight that is beyond f16
 */
export function decodeHalves(name: string, bytes: Uint8Array<ArrayBuffer>, dtype: Dtype): Float16Array<ArrayBuffer> {
  const size = DTYPE_BYTES[dtype];
  if (dtype === "F16") return new Float16Array(bytes.buffer, bytes.byteOffset, bytes.length / size);
  const halves = new Float16Array(bytes.length / size);
  for (let at = 0; at < halves.length; at += PART_WEIGHTS) {
    halves.set(decodeWeights(bytes.subarray(at * size, (at + PART_WEIGHTS) * size), dtype), at);
  }
  return checkHalves(name, halves);
}

function checkHalves(name: string, halves: Float16Array<ArrayBuffer>): Float16Array<ArrayBuffer> {
  const bad = findNotFiniteBits(bytesOf(halves), "F16");
  if (bad < 0) return halves;
  throw new RangeError(`${name}[${bad}] is ${Number.isNaN(halves[bad]) ? "NaN" : "beyond f16"}, must be within 65504`);
}

/** Bits of a word that all are set where it is NaN or infinite. */
const EXPONENT_BITS: Readonly<Partial<Record<Dtype, number>>> = { F32: 0x7f800000, F16: 0x7c00, BF16: 0x7f80 };

/** Index of the first weight that is NaN or infinite, -1 where there is none or the dtype holds no weights. */
export function findNotFiniteBits({ buffer, byteOffset, length }: Uint8Array<ArrayBuffer>, dtype: Dtype): number {
  const exponent = EXPONENT_BITS[dtype];
  if (exponent === undefined) return -1;
  const words = dtype === "F32"
    ? new Uint32Array(buffer, byteOffset, length / 4)
    : new Uint16Array(buffer, byteOffset, length / 2);
  for (let i = 0; i < words.length; i++) if ((words[i] & exponent) === exponent) return i;
  return -1;
}

/** The bytes of a typed array, without a copy. */
export function bytesOf(array: ArrayBufferView<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/**
 * Fails for weights that are no numbers.
 *
 * @param file that holds the tensor
 * @param first element of the tensor that `values` begin with
 * @throws {SyntaxError} naming the first element that is NaN or infinite
 */
export function checkFinite(file: string, tensor: string, values: Float32Array, first = 0): void {
  const bad = findNotFinite(values);
  if (bad >= 0) {
    throw new SyntaxError(`${file}: tensor ${clipText(tensor)} holds ${values[bad]} at element ${first + bad}`);
  }
}
