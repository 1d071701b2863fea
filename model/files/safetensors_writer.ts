// Writer of the safetensors format.
import { writeBeside } from "../host/atomic_file.ts";
import { type Dtype, DTYPE_BYTES } from "./safetensors.ts";

/** A tensor that will be written; its bytes are asked for when their turn comes, so one tensor is in memory at a time. */
export interface TensorToWrite {
  /** Name of the tensor. */
  readonly name: string;
  /** Element type. */
  readonly dtype: Dtype;
  /** Dimensions, slowest first. */
  readonly shape: readonly number[];
  /** The tensor's bytes, little end first; its length must fit dtype and shape. */
  bytes(): Uint8Array<ArrayBuffer> | Promise<Uint8Array<ArrayBuffer>>;
}

/**
 * Writes a safetensors file beside its place and renames it when it is whole. Of the tensors one is in memory at a time.
 *
 * @param metadata text entries of the header
 * @param checkBefore asked when all is written, before the file appears under its name
 * @throws {TypeError} when a tensor's bytes don't fit its dtype and shape, or a name occurs twice
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>> = {},
  checkBefore: () => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let end = 0;
  for (const { name, dtype, shape } of tensors) {
    if (Object.hasOwn(header, name)) throw new TypeError(`tensor ${name} is given twice`);
    if (!shape.every((length) => Number.isSafeInteger(length) && length >= 0)) {
      throw new TypeError(`tensor ${name} has shape [${shape.join(", ")}], must be whole numbers from 0 on`);
    }
    const begin = end;
    end += sizeOf(dtype, shape);
    header[name] = { dtype, shape, data_offsets: [begin, end] };
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const padding = (8 - (json.length % 8)) % 8;
  const prefix = new Uint8Array(8 + json.length + padding).fill(0x20);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(json.length + padding), true);
  prefix.set(json, 8);
  await writeBeside(path, async (write) => {
    await write(prefix);
    for (const tensor of tensors) {
      const bytes = await tensor.bytes();
      const wanted = sizeOf(tensor.dtype, tensor.shape);
      if (bytes.length !== wanted) {
        throw new TypeError(`tensor ${tensor.name} has ${bytes.length} bytes, must have ${wanted}`);
      }
      await write(bytes);
    }
    await checkBefore();
  });
}

function sizeOf(dtype: Dtype, shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, DTYPE_BYTES[dtype]);
}
