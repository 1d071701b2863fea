// A checkpoint in Hugging Face layout, as a folder of files that lie on a disk or behind a server.
import type { ByteSource } from "./byte_source.ts";
import {
  type Checkpoint,
  readFinite,
  readWeights,
  refuseMissingTensors,
  refuseUnusedTensors,
  tensorToWrite,
  withOwnHead,
} from "./checkpoint.ts";
import { type ModelConfig, parseConfig } from "../llama/config.ts";
import { asJsonObject, parseJsonObject } from "../host/json.ts";
import { clipText, quoteText } from "../host/quote_text.ts";
import {
  readSafetensorsHeader,
  type SafetensorsFile,
  type ShardTensor,
  type TensorInfo,
  tensorInfo,
} from "./safetensors.ts";
import { neededTensor, readRowsInUnits, toStandardLayout } from "./tensor_layout.ts";

/** Files by name, wherever they lie. */
export interface CheckpointFolder {
  /** What error messages call it. */
  readonly name: string;
  /** Reads a text file; undefined where there is none. */
  readText(file: string): Promise<string | undefined>;
  /** Opens a file; undefined where there is none. */
  open(file: string): Promise<ByteSource | undefined>;
}

/**
 * Reads a checkpoint: config.json, and model.safetensors or model.safetensors.index.json with its shards.
 *
 * @throws {SyntaxError} when a file is missing or malformed
 */
export async function readCheckpointFolder(folder: CheckpointFolder): Promise<Checkpoint> {
  const { name: directory, readText } = folder;
  const configText = await readText("config.json");
  if (configText === undefined) {
    throw new SyntaxError(`${directory} has no config.json, so it is not a model directory`);
  }
  const config = parseConfig(`${directory}/config.json`, configText);
  const shards = await readShards(folder);
  try {
    const checkpoint = describeCheckpoint(folder, withOwnHead(config, shards.tensors), shards);
    refuseMissingTensors(checkpoint);
    return checkpoint;
  } catch (error) {
    shards[Symbol.dispose]();
    throw error;
  }
}

function describeCheckpoint(
  { name: directory, readText }: CheckpointFolder,
  config: ModelConfig,
  shards: Shards,
): Checkpoint {
  const tensors = toStandardLayout(directory, config, shards.tensors);
  refuseUnusedTensors(directory, config, Array.from(tensors, ([name, { info }]) => ({ name, dtype: info.dtype })));
  const find = (name: string) => neededTensor(directory, tensors, name);
  return {
    name: directory,
    config,
    files: shards.files.map(({ source }) => source.name),
    tensors: Array.from(tensors.values(), tensorToWrite),
    shapes: new Map(Array.from(tensors, ([name, { info }]) => [name, info.shape])),
    has: (name) => tensors.has(name),
    read: async (name, shape) => await readWeights(find(name), shape),
    async readRows(name, first, count) {
      const { file, info, order } = find(name);
      const read = (part: TensorInfo) => readFinite({ file, info: part, ...(order && { order }) });
      return await readRowsInUnits(info, order?.length ?? 1, first, count, read);
    },
    readText,
    [Symbol.dispose]: () => shards[Symbol.dispose](),
  };
}

/** Safetensors files that belong together: one, or the shards that an index names. Dispose it to close them. */
export interface Shards extends Disposable {
  /** The files. */
  readonly files: readonly SafetensorsFile[];
  /** Tensors by name, each with the file that holds it. */
  readonly tensors: ReadonlyMap<string, ShardTensor>;
}

/** Reads the headers of model.safetensors, or of all shards of model.safetensors.index.json. @throws {SyntaxError} */
export async function readShards(folder: CheckpointFolder): Promise<Shards> {
  const files: SafetensorsFile[] = [];
  const tensors = new Map<string, ShardTensor>();
  const shards = { files, tensors, [Symbol.dispose]: () => files.forEach((file) => file[Symbol.dispose]()) };
  try {
    for await (const { source, wanted } of openSources(folder)) {
      const file = await readSource(source);
      files.push(file);
      for (const name of wanted ?? file.tensors.keys()) tensors.set(name, { file, info: tensorInfo(file, name) });
    }
    return shards;
  } catch (error) {
    shards[Symbol.dispose]();
    throw error;
  }
}

/** Reads a safetensors file's header; the file then owns the source. @throws {SyntaxError} */
export async function readSource(source: ByteSource): Promise<SafetensorsFile> {
  try {
    return await readSafetensorsHeader(source);
  } catch (error) {
    source[Symbol.dispose]();
    throw error;
  }
}

/** A weight file and the tensors to take from it: all where there is no index. */
interface Shard {
  readonly source: ByteSource;
  readonly wanted?: readonly string[];
}

async function* openSources({ name, readText, open }: CheckpointFolder): AsyncGenerator<Shard> {
  const single = await open("model.safetensors");
  if (single) return yield { source: single };
  const index = await readText(INDEX);
  if (index === undefined) throw new SyntaxError(`${name} has neither model.safetensors nor ${INDEX}`);
  for (const [file, wanted] of parseShardNames(`${name}/${INDEX}`, index)) {
    const source = await open(file);
    if (!source) throw new SyntaxError(`${name}/${file} is missing`);
    yield { source, wanted };
  }
}

/** What names the shards of a checkpoint that has several. */
export const INDEX = "model.safetensors.index.json";

/** Reads an index of shards: names of the files, each with its tensors. @throws {SyntaxError} for a name with a path */
export function parseShardNames(name: string, text: string): Map<string, string[]> {
  const { fields } = parseJsonObject(name, text);
  const shards = new Map<string, string[]>();
  for (const [tensor, file] of Object.entries(asJsonObject(`${name}: weight_map`, fields.weight_map).fields)) {
    if (typeof file !== "string" || !/^[\w.-]+\.safetensors$/.test(file)) {
      throw new SyntaxError(
        `${name}: ${clipText(tensor)} is in ${quoteText(file)}, must be the name of a .safetensors file`,
      );
    }
    const tensors = shards.get(file) ?? [];
    tensors.push(tensor);
    shards.set(file, tensors);
  }
  return shards;
}
