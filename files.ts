/**
 * Weight files, read range by range: safetensors (one file or shards, whatever the model) and GGUF; and written: safetensors,
 * one tensor in memory at a time, and in it the packed format of this package. Malformed files are refused with a
 * SyntaxError that names file, place, what was found and what is wanted.
 *
 * ```ts
 * import { openSafetensors, readTensor, readTensorBytes, tensorRows, writeSafetensors } from "@twobit/twobit/files";
 * import { assertEquals } from "@std/assert";
 *
 * const path = await Deno.makeTempFile({ suffix: ".safetensors" });
 * const values = Float16Array.from({ length: 100 * 8 }, (_, i) => i);
 * await writeSafetensors(path, [
 *   { name: "embedding", dtype: "F16", shape: [100, 8], bytes: () => new Uint8Array(values.buffer) },
 * ]);
 *
 * using file = await openSafetensors(path); // reads the header alone
 * const info = file.tensors.get("embedding")!;
 * assertEquals(await readTensor(file, tensorRows(info, 50, 2)), Float32Array.from(values.slice(400, 416)));
 * assertEquals((await readTensorBytes(file, info)).length, 1600);
 * await Deno.remove(path);
 * ```
 *
 * Shards of a directory, and files that lie elsewhere:
 *
 * ```ts
 * import { blobSource, bytesSource, openShards, readSafetensorsHeader, readTensor } from "@twobit/twobit/files";
 * import { assertEquals } from "@std/assert";
 *
 * using shards = await openShards("tests/fixtures/llama3_scaled_bias");
 * const { file, info } = shards.tensors.get("model.norm.weight")!;
 * assertEquals((await readTensor(file, info)).length, info.shape[0]);
 *
 * const bytes = await Deno.readFile("tests/fixtures/dtypes.safetensors");
 * for (const source of [bytesSource("memory", bytes), blobSource("chosen by a person", new Blob([bytes]))]) {
 *   assertEquals(await readTensor(await readSafetensorsHeader(source), "u16"), Uint16Array.of(0, 256, 65535));
 * }
 * ```
 *
 * Packed tensors; a whole model in packed form is opened by `openModel`, as are directories and GGUF files:
 *
 * ```ts
 * import * as files from "@twobit/twobit/files";
 * import { quantizeTwobit, SETTINGS } from "@twobit/twobit/quant";
 * import { assertEquals } from "@std/assert";
 *
 * const tensor = quantizeTwobit(Float32Array.from({ length: 16 * 128 }, (_, i) => Math.sin(i)), 16, 128, SETTINGS);
 * const path = await Deno.makeTempFile();
 * const metadata = files.packedMetadata(new Map([["layer", tensor]]), { sourceSha256: "", settings: "{}" });
 * await files.writeSafetensors(path, files.planesToWrite("layer", tensor), metadata);
 * using file = await files.openSafetensors(path);
 * const shape = files.readPackedShapes(file).get("layer")!;
 * assertEquals(await files.readPackedTensor(file, "layer", shape), tensor);
 * await Deno.remove(path);
 * ```
 *
 * GGUF:
 *
 * ```ts
 * import { openGgufFile, openModel, readGgufTensor, tensorRows } from "@twobit/twobit/files";
 * import { assertEquals } from "@std/assert";
 *
 * using file = await openGgufFile("tests/fixtures/gguf/qwen2.gguf");
 * assertEquals(file.metadata["general.architecture"], "qwen2");
 * const row = await readGgufTensor(tensorRows(file.tensors.get("token_embd.weight")!, 1, 1));
 * using model = await openModel("tests/fixtures/gguf/qwen2.gguf"); // the same, under Hugging Face's names
 * assertEquals(await model.readRows("model.embed_tokens.weight", 1, 1), row);
 * ```
 *
 * @module
 */
export { blobSource, type ByteSource, bytesSource } from "./model/files/byte_source.ts";
export type { Shards } from "./model/files/checkpoint_folder.ts";
export { type GgufFile, openGgufFile } from "./model/files/gguf_file.ts";
export { type GgufTensor, readGgufTensor } from "./model/files/gguf_tensor.ts";
export type { CarriedBlocks, CarriedTensor } from "./model/files/carried_blocks.ts";
export type { GgufType } from "./model/files/gguf_types.ts";
export { openSafetensors, openShards } from "./model/files/open_directory.ts";
export {
  type PackedMetadata,
  packedMetadata,
  planesToWrite,
  readPackedShapes,
  readPackedTensor,
} from "./model/files/packed_file.ts";
export type { PackedShape } from "./quant/packed_tensor.ts";
export { readTensor, type TensorValues } from "./model/files/read_tensor.ts";
export {
  type Dtype,
  readSafetensorsHeader,
  readTensorBytes,
  type SafetensorsFile,
  type ShardTensor,
  type StoredRows,
  type TensorInfo,
  tensorRows,
} from "./model/files/safetensors.ts";
export { type TensorToWrite, writeSafetensors } from "./model/files/safetensors_writer.ts";
export { openModel } from "./model/load.ts";
