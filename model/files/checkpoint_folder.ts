/**
 * A checkpoint in Hugging Face layout, as a folder of files that lie on a disk or behind a server.
 *
 * @module
 */
import type { ByteSource } from "./byte_source.ts";
import { type Checkpoint, readWeights, refuseUnusedTensors, tensorToWrite } from "./checkpoint.ts";
import { parseConfig } from "../llama/config.ts";
import { asJsonObject, parseJsonObject } from "../host/json.ts";
import { readSafetensorsHeader, type SafetensorsFile, tensorInfo } from "./safetensors.ts";
import { type PlacedTensor, toStandardLayout } from "./tensor_layout.ts";

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
  const files: SafetensorsFile[] = [];
  const close = () => files.forEach(({ source }) => source[Symbol.dispose]());
  try {
    const stored = new Map<string, PlacedTensor>();
    for await (const { source, wanted } of openShards(folder)) {
      const file = await readSource(source);
      files.push(file);
      for (const name of wanted ?? file.tensors.keys()) stored.set(name, { file, info: tensorInfo(file, name) });
    }
    const tensors = toStandardLayout(directory, config, stored);
    refuseUnusedTensors(directory, config, tensors.keys());
    return {
      name: directory,
      config,
      files: files.map(({ source }) => source.name),
      tensors: Array.from(tensors.values(), tensorToWrite),
      has: (name) => tensors.has(name),
      read(name, shape) {
        const tensor = tensors.get(name);
        if (!tensor) return Promise.reject(new SyntaxError(`${directory}: no tensor ${name}`));
        return readWeights(tensor, shape);
      },
      readText,
      [Symbol.dispose]: close,
    };
  } catch (error) {
    close();
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

async function* openShards({ name, readText, open }: CheckpointFolder): AsyncGenerator<Shard> {
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

const INDEX = "model.safetensors.index.json";

/** Reads an index of shards: names of the files, each with its tensors. @throws {SyntaxError} for a name with a path */
export function parseShardNames(name: string, text: string): Map<string, string[]> {
  const { fields } = parseJsonObject(name, text);
  const shards = new Map<string, string[]>();
  for (const [tensor, file] of Object.entries(asJsonObject(`${name}: weight_map`, fields.weight_map).fields)) {
    if (typeof file !== "string" || !/^[\w.-]+\.safetensors$/.test(file)) {
      throw new SyntaxError(
        `${name}: ${tensor} is in ${JSON.stringify(file)}, must be the name of a .safetensors file`,
      );
    }
    const tensors = shards.get(file) ?? [];
    tensors.push(tensor);
    shards.set(file, tensors);
  }
  return shards;
}
