// Between the layout that an architecture's checkpoints have and the one that everything else knows: fused tensors are
// split, and heads reordered so that halves rotate with each other; and back, bit by bit.
//
// Splitting copies nothing, since rows lie one after the other: a part is a tensor of the same file that starts later.
import { architectureOf } from "../llama/architectures.ts";
import type { ModelConfig } from "../llama/config.ts";
import { allLayerTensors, type LayerTensor, layerTensors, linearName } from "../llama/layer.ts";
import { halfSplitOrder } from "../llama/rope.ts";
import {
  DTYPE_BYTES,
  readTensorBytes,
  type ShardTensor,
  type StoredRows,
  type TensorInfo,
  tensorRows,
} from "./safetensors.ts";
import type { TensorToWrite } from "./safetensors_writer.ts";

/** A tensor, the file that holds it, and the order in which it is read. */
export interface PlacedTensor extends ShardTensor {
  /** The order in which rows of each head are taken; as they are where this is absent. */
  readonly order?: readonly number[];
}

/** Reads the bytes of a tensor, rows in their order. */
export async function readStoredBytes({ file, info, order }: PlacedTensor): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = await readTensorBytes(file, info);
  return order ? reorderHeads(bytes, info.shape[0], order) : bytes;
}

/** Bytes of a tensor whose row i of each head is row order[i] of that head in `bytes`. */
export function reorderHeads(
  bytes: Uint8Array<ArrayBuffer>,
  rows: number,
  order: readonly number[],
): Uint8Array<ArrayBuffer> {
  const width = bytes.length / rows;
  const reordered = new Uint8Array(bytes.length);
  for (let row = 0; row < rows; row++) {
    const inHead = row % order.length;
    const source = (row - inHead + order[inHead]) * width;
    reordered.set(bytes.subarray(source, source + width), row * width);
  }
  return reordered;
}

/**
 * Reads rows of a tensor by way of the runs of `unit` rows that hold them: the last may be shorter.
 *
 * @param read f32 of a part of the tensor, which is its rows `start` .. `end` - 1
 * @throws {RangeError} when the tensor hasn't these rows
 */
export async function readRowsInUnits<T extends StoredRows>(
  tensor: T,
  unit: number,
  first: number,
  count: number,
  read: (part: T, start: number, end: number) => Float32Array | Promise<Float32Array>,
): Promise<Float32Array> {
  tensorRows(tensor, first, count);
  const start = first - first % unit;
  const end = Math.min(tensor.shape[0], Math.ceil((first + count) / unit) * unit);
  const values = await read(tensorRows(tensor, start, end - start), start, end);
  const width = values.length / (end - start);
  return values.subarray((first - start) * width, (first - start + count) * width);
}

/** Fails where a tensor has another shape than the model needs. @throws {SyntaxError} */
export function checkShape(
  file: string,
  { name, shape }: Pick<TensorInfo, "name" | "shape">,
  wanted: readonly number[],
): void {
  if (shape.join() === wanted.join()) return;
  throw new SyntaxError(`${file}: tensor ${name} has shape [${shape.join(", ")}], must be [${wanted.join(", ")}]`);
}

/** Finds a tensor that the model needs. @throws {SyntaxError} where there is none */
export function neededTensor<T>(checkpoint: string, tensors: ReadonlyMap<string, T>, name: string): T {
  const tensor = tensors.get(name);
  if (tensor === undefined) throw new SyntaxError(`${checkpoint}: no tensor ${name}`);
  return tensor;
}

/**
 * The tensors of a checkpoint as everything else knows them, from those of its files.
 *
 * @param checkpoint what error messages call it
 * @throws {SyntaxError} for a fused or reordered tensor that is missing or has another shape
 */
export function toStandardLayout(
  checkpoint: string,
  config: ModelConfig,
  stored: ReadonlyMap<string, PlacedTensor>,
): Map<string, PlacedTensor> {
  const order = headOrder(config);
  const standard = new Map(stored);
  for (const { name, parts } of fusedTensors(config)) {
    const { file, info } = neededTensor(checkpoint, stored, name);
    standard.delete(name);
    for (const part of splitRows(file.source.name, info, parts)) standard.set(part.name, { file, info: part });
  }
  for (const { name, shape, rotates } of allLayerTensors(config).values()) {
    const tensor = standard.get(name);
    if (!order || !rotates || !tensor) continue;
    checkShape(tensor.file.source.name, tensor.info, shape);
    standard.set(name, { ...tensor, order });
  }
  return standard;
}

/** The inverse of {@linkcode toStandardLayout}: tensors as the architecture's checkpoints have them. @throws {SyntaxError} */
export function toOwnLayout(config: ModelConfig, tensors: readonly TensorToWrite[]): TensorToWrite[] {
  const order = headOrder(config);
  const own = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  for (const { name, rotates } of allLayerTensors(config).values()) {
    const tensor = own.get(name);
    if (order && rotates && tensor) own.set(name, restoreHeads(tensor, order));
  }
  for (const { name, parts } of fusedTensors(config)) {
    own.set(name, joinRows(name, parts.map((part) => takeTensor(own, part.name))));
  }
  return [...own.values()];
}

function headOrder({ architecture, rope, headSize }: ModelConfig): readonly number[] | undefined {
  return halfSplitOrder(rope, headSize, architectureOf(architecture).rotatesNeighbours ?? false);
}

/** A fused tensor, and the parts whose rows lie in it one after the other. */
export interface FusedTensor {
  readonly name: string;
  readonly parts: readonly LayerTensor[];
}

/** The fused tensors of all layers. */
export function fusedTensors(config: ModelConfig): FusedTensor[] {
  const fused = Object.entries(architectureOf(config.architecture).fused ?? {});
  return Array.from({ length: config.layers }, (_, layer) => {
    const tensors = layerTensors(config, layer);
    return fused.map(([module, kinds]) => ({
      name: `model.layers.${layer}.${module}.weight`,
      parts: kinds.map((kind) => tensors.find(({ name }) => name === `${linearName(layer, kind)}.weight`)!),
    }));
  }).flat();
}

/** The parts of a fused tensor, each a tensor of the same file. @throws {SyntaxError} for one of another shape */
export function splitRows<T extends StoredRows>(file: string, fused: T, parts: readonly LayerTensor[]): T[] {
  const rows = parts.reduce((sum, { shape }) => sum + shape[0], 0);
  checkShape(file, fused, [rows, parts[0].shape[1]]);
  let { offset } = fused;
  return parts.map(({ name, shape }) => {
    const sizeBytes = (fused.sizeBytes / rows) * shape[0];
    offset += sizeBytes;
    return { ...fused, name, shape, sizeBytes, offset: offset - sizeBytes };
  });
}

function takeTensor(tensors: Map<string, TensorToWrite>, name: string): TensorToWrite {
  const tensor = tensors.get(name);
  if (!tensor) throw new SyntaxError(`no tensor ${name}, must be there to be joined with others`);
  tensors.delete(name);
  return tensor;
}

/** Tensors of one dtype and width as one. */
function joinRows(name: string, parts: readonly TensorToWrite[]): TensorToWrite {
  const rows = parts.reduce((sum, { shape }) => sum + shape[0], 0);
  const [{ dtype, shape: [, channels] }] = parts;
  const bytes = async () => {
    const joined = new Uint8Array(rows * channels * DTYPE_BYTES[dtype]);
    let at = 0;
    for (const part of parts) {
      const own = await part.bytes();
      joined.set(own, at);
      at += own.length;
    }
    return joined;
  };
  return { name, dtype, shape: [rows, channels], bytes };
}

function restoreHeads(tensor: TensorToWrite, order: readonly number[]): TensorToWrite {
  const inverse = order.map((_, element) => order.indexOf(element));
  const bytes = async () => reorderHeads(new Uint8Array(await tensor.bytes()), tensor.shape[0], inverse);
  return { ...tensor, bytes };
}
