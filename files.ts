/**
 * Weight files, read range by range: safetensors (one file or shards, whatever the model) and GGUF; and written: safetensors,
 * one tensor in memory at a time, and in it the packed format of this package.
 *
 * ```ts
 * import { openSafetensors, readTensor, tensorRows, writeSafetensors } from "@twobit/twobit/files";
 * import { assert } from "@std/assert";
 *
 * const path = await Deno.makeTempFile({ suffix: ".safetensors" });
 * const values = Float32Array.from({ length: 1000 * 8 }, (_, i) => i);
 * await writeSafetensors(path, [
 *   { name: "embedding", dtype: "F32", shape: [1000, 8], bytes: () => new Uint8Array(values.buffer) },
 * ]);
 *
 * using file = await openSafetensors(path); // reads the header alone
 * const rows = tensorRows(file.tensors.get("embedding")!, 500, 2);
 * assert((await readTensor(file, rows)).join() === values.slice(4000, 4016).join());
 * await Deno.remove(path);
 * ```
 *
 * Malformed files are refused with a SyntaxError that names file, place, what was found and what is wanted.
 *
 * @module
 */
export { blobSource, type ByteSource, bytesSource } from "./model/files/byte_source.ts";
export type { Shards, ShardTensor } from "./model/files/checkpoint_folder.ts";
export { type GgufFile, type GgufTensor, openGgufFile, readGgufTensor } from "./model/files/gguf_file.ts";
export type { GgufType } from "./model/files/gguf_types.ts";
export { openSafetensors, openShards } from "./model/files/open_directory.ts";
export {
  type PackedMetadata,
  packedMetadata,
  type PackedShape,
  planesToWrite,
  readPackedShapes,
  readPackedTensor,
} from "./model/files/packed_file.ts";
export { readTensor, type TensorValues } from "./model/files/read_tensor.ts";
export {
  type Dtype,
  readSafetensorsHeader,
  readTensorBytes,
  type SafetensorsFile,
  type StoredRows,
  type TensorInfo,
  tensorRows,
} from "./model/files/safetensors.ts";
export { type TensorToWrite, writeSafetensors } from "./model/files/safetensors_writer.ts";
export { openModel } from "./model/load.ts";
