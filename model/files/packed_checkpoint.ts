// A quantized model in one file: packed linear layers, the rest as it was, configuration and tokenizer.
import { sliceTiles } from "../../quant/concatenate.ts";
import { dequantize } from "../../quant/dequantize.ts";
import { TILE_ROWS } from "../../quant/format.ts";
import type { PackedShape, PackedTensor } from "../../quant/packed_tensor.ts";
import type { ByteSource } from "./byte_source.ts";
import { type CarriedTensor, carryBlocks, findCarriedBlocks } from "./carried_blocks.ts";
import {
  type Checkpoint,
  MAX_TEXT_BYTES,
  readFinite,
  readWeights,
  refuseMissingTensors,
  refuseUnusedTensors,
  tensorToWrite,
  withOwnHead,
} from "./checkpoint.ts";
import { type ModelConfig, parseConfig } from "../llama/config.ts";
import { clipText } from "../host/quote_text.ts";
import { allLayerTensors, linearWeights } from "../llama/layer.ts";
import { readGgufTensor } from "./gguf_tensor.ts";
import { isPackedFile, isPlane, readPackedShapes, readPackedTensor } from "./packed_file.ts";
import { readSafetensorsHeader, readTensorBytes, type SafetensorsFile, tensorInfo, tensorRows } from "./safetensors.ts";
import { checkShape, readRowsInUnits } from "./tensor_layout.ts";
import type { TensorToWrite } from "./safetensors_writer.ts";

/** Text files of a checkpoint that a packed file carries, as U8 tensors of this prefix and their name. */
export const CARRIED_FILES = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
] as const;
const FILE_PREFIX = "file:";

/** A packed file, opened; it reads like any checkpoint and also gives its tensors as they are packed. */
export interface PackedCheckpoint extends Checkpoint {
  readonly file: SafetensorsFile;
  /** Shapes of the packed tensors, by name without `.weight`. */
  readonly packed: ReadonlyMap<string, PackedShape>;
  /** Reads a packed tensor as it is. @throws {SyntaxError} */
  readPacked(name: string): Promise<PackedTensor>;
}

/** Whether a checkpoint is a packed file. */
export function isPacked<T extends Pick<Checkpoint, "name">>(checkpoint: T): checkpoint is T & PackedCheckpoint {
  return "packed" in checkpoint;
}

/**
 * Reads a packed file from any source, which the checkpoint then owns.
 *
 * @throws {SyntaxError} when it isn't one, or breaks a rule of the format
 */
export async function readPackedCheckpoint(name: string, source: ByteSource): Promise<PackedCheckpoint> {
  try {
    const file = await readSafetensorsHeader(source);
    if (!isPackedFile(file)) {
      throw new SyntaxError(`${name}: format is ${clipText(file.metadata.format ?? "missing")}, must be twobit`);
    }
    const packed = readPackedShapes(file);
    const configText = await readCarriedFile(file, "config.json");
    if (configText === undefined) throw new SyntaxError(`${name} has no ${FILE_PREFIX}config.json`);
    const config = withOwnHead(parseConfig(`${name}, config.json`, configText), file.tensors);
    const checkpoint = describeCheckpoint(name, file, packed, config);
    const weights = Array.from(packed.keys(), (tensor) => ({ name: `${tensor}.weight`, dtype: "F16" }));
    const carried = carriedTensors(checkpoint, packed).map(({ name, dtype, blocks }) => ({
      name,
      dtype: blocks?.type.name ?? dtype,
    }));
    refuseUnusedTensors(name, config, [...weights, ...carried]);
    refuseMissingTensors(checkpoint);
    return checkpoint;
  } catch (error) {
    source[Symbol.dispose]();
    throw error;
  }
}

function describeCheckpoint(
  checkpoint: string,
  file: SafetensorsFile,
  packed: ReadonlyMap<string, PackedShape>,
  config: ModelConfig,
): PackedCheckpoint {
  const readPacked = (name: string) => {
    const shape = packed.get(name);
    if (!shape) return Promise.reject(new SyntaxError(`${checkpoint}: no packed tensor ${name}`));
    return readPackedTensor(file, name, shape);
  };
  const carried = Array.from(file.tensors.values()).filter(({ name }) => isCarried(name, packed));
  const blocks = findCarriedBlocks(file);
  const shapes = new Map([
    ...carried.map(({ name, shape }) => [name, blocks.get(name)?.shape ?? shape] as const),
    ...Array.from(packed, ([name, { rows, channels }]) => [`${name}.weight`, [rows, channels]] as const),
  ]);
  return {
    name: checkpoint,
    config,
    file,
    files: [file.source.name],
    tensors: Array.from(file.tensors.values(), (info) => {
      const tensor = blocks.get(info.name);
      return tensor ? carryBlocks(info.name, tensor) : tensorToWrite({ file, info });
    }),
    packed,
    readPacked,
    readText: (name) => readCarriedFile(file, name),
    shapes,
    has: (name) => shapes.has(name),
    async read(name, shape) {
      const tensorOfBlocks = blocks.get(name);
      if (tensorOfBlocks) {
        checkShape(checkpoint, tensorOfBlocks, shape);
        return await readGgufTensor(tensorOfBlocks);
      }
      if (!packed.has(withoutWeight(name))) return await readWeights({ file, info: tensorInfo(file, name) }, shape);
      const tensor = await readPacked(withoutWeight(name));
      if (tensor.rows !== shape[0] || tensor.channels !== shape[1]) {
        throw new SyntaxError(
          `${checkpoint}: ${name} is packed as [${tensor.rows}, ${tensor.channels}], must be [${shape.join(", ")}]`,
        );
      }
      return dequantize(tensor);
    },
    async readRows(name, first, count) {
      const tensorOfBlocks = blocks.get(name);
      if (tensorOfBlocks) return await readGgufTensor(tensorRows(tensorOfBlocks, first, count));
      if (!packed.has(withoutWeight(name))) {
        return await readFinite({ file, info: tensorRows(tensorInfo(file, name), first, count) });
      }
      const packedTensor = await readPacked(withoutWeight(name));
      const { rows, channels } = packedTensor;
      const decode = (_: unknown, start: number, end: number) =>
        dequantize(sliceTiles(packedTensor, start / TILE_ROWS, Math.ceil(end / TILE_ROWS)));
      const whole = { name, shape: [rows, channels], offset: 0, sizeBytes: 0 };
      return await readRowsInUnits(whole, TILE_ROWS, first, count, decode);
    },
    [Symbol.dispose]: () => file.source[Symbol.dispose](),
  };
}

/** Bytes of the linear layers' weights: those that the file has of packed ones, and f16 of all others. */
export function linearBytes(checkpoint: Checkpoint): number {
  const { packed, file } = isPacked(checkpoint) ? checkpoint : {};
  let bytes = 0;
  for (const { name, shape: [rows, channels] } of allLayerTensors(checkpoint.config).values()) {
    if (channels !== undefined && !packed?.has(withoutWeight(name))) bytes += 2 * rows * channels;
  }
  for (const { name, sizeBytes } of file?.tensors.values() ?? []) if (isPlane(name, packed!)) bytes += sizeBytes;
  return bytes;
}

/** Bits a weight of the linear layers, by {@linkcode linearBytes}. */
export function bitsPerWeight(checkpoint: PackedCheckpoint): number {
  return (8 * linearBytes(checkpoint)) / linearWeights(checkpoint.config);
}

function withoutWeight(name: string): string {
  return name.replace(/\.weight$/, "");
}

async function readCarriedFile(file: SafetensorsFile, name: string): Promise<string | undefined> {
  const info = file.tensors.get(FILE_PREFIX + name);
  if (info && info.sizeBytes > MAX_TEXT_BYTES) {
    throw new SyntaxError(
      `${file.source.name}: ${info.name} has ${info.sizeBytes} bytes, must have at most ${MAX_TEXT_BYTES}`,
    );
  }
  return info && new TextDecoder().decode(await readTensorBytes(file, info));
}

/** A checkpoint's text files as tensors. */
export async function carriedFiles(checkpoint: Checkpoint): Promise<TensorToWrite[]> {
  const tensors: TensorToWrite[] = [];
  for (const name of CARRIED_FILES) {
    const text = await checkpoint.readText(name);
    if (text === undefined) continue;
    const bytes = new TextEncoder().encode(text);
    tensors.push({ name: FILE_PREFIX + name, dtype: "U8", shape: [bytes.length], bytes: () => bytes });
  }
  return tensors;
}

/** The tensors of a checkpoint that stay as they are when some of its matrices are packed. */
export function carriedTensors(checkpoint: Checkpoint, packed: Pick<ReadonlySet<string>, "has">): CarriedTensor[] {
  return checkpoint.tensors.filter(({ name }) => isCarried(name, packed));
}

function isCarried(name: string, packed: Pick<ReadonlySet<string>, "has">): boolean {
  return !name.startsWith(FILE_PREFIX) && !packed.has(withoutWeight(name)) && !isPlane(name, packed);
}
