// A tensor in an element type of GGUF, wherever its bytes lie: in a GGUF file, or carried in a packed file.
import type { ByteSource } from "./byte_source.ts";
import { decodeGguf, GGUF_TYPES, type GgufType } from "./gguf_types.ts";
import { checkFinite } from "./numbers.ts";
import { release } from "../host/release.ts";
import type { StoredRows } from "./safetensors.ts";

/** Where one tensor lies. */
export interface GgufTensor extends StoredRows {
  /** Element type. */
  readonly type: GgufType;
  /** The file that holds it. */
  readonly source: ByteSource;
}

/** Fails for a tensor of a type that isn't read; such a one may be in a file all the same. @throws {SyntaxError} */
export function refuseUnread({ name, type, source }: GgufTensor): void {
  if (type.bytes > 0) return;
  const known = Array.from(GGUF_TYPES.values(), ({ name }) => name).join(", ");
  throw new SyntaxError(`${source.name}: tensor ${name} has type ${type.name}, must be one of ${known}`);
}

/**
 * Reads a tensor, or rows of one ({@linkcode tensorRows}), as f32.
 *
 * @throws {SyntaxError} when it has a type that isn't read, or holds NaN or infinity
 */
export async function readGgufTensor(tensor: GgufTensor): Promise<Float32Array<ArrayBuffer>> {
  const { source } = tensor;
  refuseUnread(tensor);
  const bytes = await source.read(tensor.offset, tensor.sizeBytes);
  const values = decodeGguf(tensor.type, bytes);
  if (values.buffer !== bytes.buffer) release(bytes);
  checkFinite(source.name, tensor.name, values);
  return values;
}

/** Blocks that are decoded at a time to be checked. */
const PART_BLOCKS = 2 ** 14;

/** Reads the bytes of a tensor as they are stored. @throws {SyntaxError} when they decode to NaN or infinity */
export async function readGgufBytes(tensor: GgufTensor): Promise<Uint8Array<ArrayBuffer>> {
  const { source, type } = tensor;
  const bytes = await source.read(tensor.offset, tensor.sizeBytes);
  for (let block = 0; block * type.bytes < bytes.length; block += PART_BLOCKS) {
    const part = bytes.subarray(block * type.bytes, (block + PART_BLOCKS) * type.bytes);
    checkFinite(source.name, tensor.name, decodeGguf(type, part), block * type.channels);
  }
  return bytes;
}
