// Tensors that come in quantized blocks of GGUF and that a packed file carries as they are, so that it isn't larger
// than its source: embeddings and heads, mostly. Each is a U8 tensor with a row of bytes for each of its rows.
import { asJsonObject, parseJsonObject } from "../host/json.ts";
import { clipText, quoteText } from "../host/quote_text.ts";
import { type GgufTensor, readGgufBytes } from "./gguf_tensor.ts";
import { decodeGguf, GGUF_TYPES, type GgufType } from "./gguf_types.ts";
import { bytesOf, toF16 } from "./numbers.ts";
import { type SafetensorsFile, tensorInfo } from "./safetensors.ts";
import type { TensorToWrite } from "./safetensors_writer.ts";
import { reorderHeads } from "./tensor_layout.ts";

/** What a tensor's bytes are blocks of. */
export interface CarriedBlocks {
  /** Element type. */
  readonly type: GgufType;
  /** Dimensions of what they decode to, slowest first. */
  readonly shape: readonly number[];
}

/** A tensor of a checkpoint, as it goes into a safetensors file. */
export interface CarriedTensor extends TensorToWrite {
  /** Of one whose bytes are blocks: what they are. */
  readonly blocks?: CarriedBlocks;
}

/** Bytes of a tensor's rows: [rows, bytes of a row]. */
function rowsOfBytes({ type, shape }: CarriedBlocks): [rows: number, rowBytes: number] {
  const channels = shape[shape.length - 1];
  const rows = shape.reduce((product, length) => product * length, 1) / channels;
  return [rows, (channels / type.channels) * type.bytes];
}

/**
 * A tensor of blocks, to be written as it is.
 *
 * @param name under which it is written
 * @param order in which rows of each head are taken; as they are where this is absent
 */
export function carryBlocks(name: string, tensor: GgufTensor, order?: readonly number[]): CarriedTensor {
  const { type, shape } = tensor;
  const bytes = async () => {
    const stored = await readGgufBytes(tensor);
    return order ? reorderHeads(stored, shape[0], order) : stored;
  };
  return { name, dtype: "U8", shape: rowsOfBytes(tensor), blocks: { type, shape }, bytes };
}

/** A carried tensor's weights in f16 where they are blocks, else the tensor. */
export function decodeBlocks({ blocks, ...tensor }: CarriedTensor): TensorToWrite {
  if (!blocks) return tensor;
  const bytes = async () => bytesOf(toF16(tensor.name, decodeGguf(blocks.type, await tensor.bytes())));
  return { name: tensor.name, dtype: "F16", shape: blocks.shape, bytes };
}

/** What a packed file's metadata says of these tensors: nothing where none is of blocks. */
export function blocksMetadata(tensors: readonly CarriedTensor[]): Record<string, string> {
  const entries = tensors.flatMap(({ name, blocks }) => blocks ? [[name, blocks] as const] : []);
  if (entries.length === 0) return {};
  const named = entries.map(([name, { type, shape }]) => [name, { type: type.name, shape }]);
  return { gguf_tensors: JSON.stringify(Object.fromEntries(named)) };
}

/** The tensors of blocks that a packed file carries, by name. @throws {SyntaxError} where its metadata breaks a rule */
export function findCarriedBlocks(file: SafetensorsFile): ReadonlyMap<string, GgufTensor> {
  const { source, metadata } = file;
  if (metadata.gguf_tensors === undefined) return new Map();
  const { fields } = parseJsonObject(`${source.name}: gguf_tensors`, metadata.gguf_tensors);
  return new Map(Object.entries(fields).map(([name, value]) => [name, describeBlocks(file, name, value)]));
}

function describeBlocks(file: SafetensorsFile, name: string, value: unknown): GgufTensor {
  const what = `${file.source.name}: gguf_tensors: ${clipText(name)}`;
  const { type: typeName, shape } = asJsonObject(what, value).fields;
  const type = GGUF_TYPES.values().find((known) => known.name === typeName && known.decode);
  if (!type) throw new SyntaxError(`${what} has type ${quoteText(typeName)}, must be one of blocks`);
  const isSize = (size: unknown): size is number => Number.isSafeInteger(size) && Number(size) > 0;
  if (!Array.isArray(shape) || shape.length === 0 || !shape.every(isSize) || shape.at(-1)! % type.channels !== 0) {
    throw new SyntaxError(
      `${what} has shape ${quoteText(shape)}, must be positive lengths, the last a multiple of ${type.channels}`,
    );
  }
  const { dtype, shape: stored, offset, sizeBytes } = tensorInfo(file, name);
  const wanted = rowsOfBytes({ type, shape });
  if (dtype !== "U8" || stored.join() !== wanted.join()) {
    throw new SyntaxError(`${what} is ${dtype} [${stored.join(", ")}], must be U8 [${wanted.join(", ")}]`);
  }
  return { name, type, shape, source: file.source, offset, sizeBytes };
}
