// Reading tensors of a safetensors file as arrays of numbers.
import { decodeWeights } from "./numbers.ts";
import { type Dtype, readTensorBytes, type SafetensorsFile, type TensorInfo, tensorInfo } from "./safetensors.ts";

/**
 * Values of a tensor, slowest dimension first; of F16 and BF16 as f32, which holds them exactly, of BOOL 0 and 1, of
 * C64 both parts, of smaller floats bytes.
 */
export type TensorValues =
  | Float64Array<ArrayBuffer>
  | Float32Array<ArrayBuffer>
  | BigInt64Array<ArrayBuffer>
  | BigUint64Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | Int16Array<ArrayBuffer>
  | Int8Array<ArrayBuffer>
  | Uint32Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>;

type ArrayClass = new (buffer: ArrayBuffer) => TensorValues;

const ARRAYS: Readonly<Record<Exclude<Dtype, "F16" | "BF16">, ArrayClass>> = {
  F64: Float64Array,
  F32: Float32Array,
  I64: BigInt64Array,
  I32: Int32Array,
  I16: Int16Array,
  I8: Int8Array,
  U64: BigUint64Array,
  U32: Uint32Array,
  U16: Uint16Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
  C64: Float32Array,
  F8_E4M3: Uint8Array,
  F8_E5M2: Uint8Array,
  F8_E8M0: Uint8Array,
  F6_E2M3: Uint8Array,
  F6_E3M2: Uint8Array,
  F4: Uint8Array,
};

/**
 * Reads a tensor, or rows of one ({@linkcode tensorRows}).
 *
 * @throws {SyntaxError} when the file has no tensor of this name
 */
export async function readTensor(file: SafetensorsFile, tensor: string | TensorInfo): Promise<TensorValues> {
  const info = typeof tensor === "string" ? tensorInfo(file, tensor) : tensor;
  const bytes = await readTensorBytes(file, info);
  return info.dtype === "F16" || info.dtype === "BF16"
    ? decodeWeights(bytes, info.dtype)
    : new ARRAYS[info.dtype](bytes.buffer);
}
