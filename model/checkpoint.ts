/**
 * Opening a checkpoint directory in Hugging Face layout and reading its tensors one by one.
 *
 * @module
 */
import { findNotFinite } from "../quant/check.ts";
import { join } from "node:path";
import { openFileSource } from "./byte_source.ts";
import { type ModelConfig, parseConfig } from "./config.ts";
import { asJsonObject, parseJsonObject } from "./json.ts";
import {
  type Layer,
  type Linear,
  LINEAR_KINDS,
  type LinearKind,
  linearName,
  linearShape,
  type Model,
} from "./llama.ts";
import { decodeWeights } from "./numbers.ts";
import { pathExists } from "./path_exists.ts";
import {
  readSafetensorsHeader,
  readTensorBytes,
  type SafetensorsFile,
  type TensorInfo,
  tensorInfo,
} from "./safetensors.ts";
import type { TensorToWrite } from "./safetensors_writer.ts";

/** A checkpoint whose headers have been read; dispose it to close its files. */
export interface Checkpoint extends Disposable {
  /** What error messages call it: a directory, or the path of a packed file. */
  readonly name: string;
  /** Configuration of the model. */
  readonly config: ModelConfig;
  /** Whether the checkpoint holds this tensor. */
  has(name: string): boolean;
  /**
   * Reads a tensor as f32; a packed one is decoded.
   *
   * @throws {SyntaxError} when it is missing, has another shape, or holds NaN or infinity
   */
  read(name: string, shape: readonly number[]): Promise<Float32Array>;
  /** Reads a text file that belongs to the checkpoint (tokenizer.json, ...); undefined where there is none. */
  readText(file: string): Promise<string | undefined>;
  /** Paths of the weight files. */
  readonly files: readonly string[];
  /** Every tensor, as it goes into a safetensors file. */
  readonly tensors: readonly TensorToWrite[];
}

/**
 * Opens a checkpoint directory: config.json, and model.safetensors or model.safetensors.index.json with its shards.
 *
 * @throws {SyntaxError} when a file is missing or malformed
 */
export async function openDirectory(directory: string): Promise<Checkpoint> {
  const readText = (file: string) => readTextIfThere(join(directory, file));
  const configText = await readText("config.json");
  if (configText === undefined) {
    throw new SyntaxError(`${directory} has no config.json, so it is not a model directory`);
  }
  const config = parseConfig(join(directory, "config.json"), configText);
  const files: SafetensorsFile[] = [];
  const close = () => files.forEach(({ source }) => source[Symbol.dispose]());
  try {
    const byName = new Map<string, SafetensorsFile>();
    for (const [path, wanted] of await listShards(directory)) {
      const file = await openSafetensors(path);
      files.push(file);
      for (const name of wanted ?? file.tensors.keys()) {
        tensorInfo(file, name);
        byName.set(name, file);
      }
    }
    return {
      name: directory,
      config,
      files: files.map(({ source }) => source.name),
      tensors: Array.from(byName, ([name, file]) => tensorToWrite(file, tensorInfo(file, name))),
      has: (name) => byName.has(name),
      read(name, shape) {
        const file = byName.get(name);
        if (!file) return Promise.reject(new SyntaxError(`${directory}: no tensor ${name}`));
        return readWeights(file, name, shape);
      },
      readText,
      [Symbol.dispose]: close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

/** Opens a safetensors file and reads its header; dispose its source to close it. @throws {SyntaxError} */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const source = await openFileSource(path).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new SyntaxError(`${path} is missing`);
  });
  try {
    return await readSafetensorsHeader(source);
  } catch (error) {
    source[Symbol.dispose]();
    throw error;
  }
}

/** A tensor of a file, to be copied into another. */
export function tensorToWrite(file: SafetensorsFile, info: TensorInfo): TensorToWrite {
  return { ...info, bytes: () => readTensorBytes(file, info) };
}

/** Largest text file of a checkpoint that is read; the largest tokenizers have some 35 MB. */
export const MAX_TEXT_BYTES = 2 ** 27;

async function readTextIfThere(path: string): Promise<string | undefined> {
  try {
    const { size } = await Deno.stat(path);
    if (size > MAX_TEXT_BYTES) throw new SyntaxError(`${path} has ${size} bytes, must have at most ${MAX_TEXT_BYTES}`);
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
/** Paths of the weight files, each with the tensors to take from it (all where there is no index). */
async function listShards(directory: string): Promise<Map<string, string[] | undefined>> {
  const single = join(directory, "model.safetensors");
  if (await pathExists(single)) return new Map([[single, undefined]]);
  const path = join(directory, "model.safetensors.index.json");
  const index = await readTextIfThere(path);
  if (index === undefined) {
    throw new SyntaxError(`${directory} has neither model.safetensors nor model.safetensors.index.json`);
  }
  return new Map(Array.from(parseShardNames(path, index), ([file, names]) => [join(directory, file), names]));
}

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

/**
 * Reads a weight tensor of a file as f32.
 *
 * @throws {SyntaxError} when it has another shape, or holds NaN or infinity
 */
export async function readWeights(
  file: SafetensorsFile,
  name: string,
  shape: readonly number[],
): Promise<Float32Array> {
  const info = tensorInfo(file, name);
  if (info.shape.join() !== shape.join()) {
    throw new SyntaxError(
      `${file.source.name}: tensor ${name} has shape [${info.shape.join(", ")}], must be [${shape.join(", ")}]`,
    );
  }
  const values = decodeWeights(await readTensorBytes(file, info), info.dtype);
  const bad = findNotFinite(values);
  if (bad >= 0) throw new SyntaxError(`${file.source.name}: tensor ${name} holds ${values[bad]} at element ${bad}`);
  return values;
}

/** Whether a linear layer has a bias. */
function hasBias({ attentionBias, outputBias }: ModelConfig, kind: LinearKind): boolean {
  return kind === "o_proj"
    ? outputBias
    : attentionBias && (kind === "q_proj" || kind === "k_proj" || kind === "v_proj");
}

/** Reads one linear layer. @throws {SyntaxError} also for a bias that the configuration doesn't speak of */
export async function readLinear(checkpoint: Checkpoint, layer: number, kind: LinearKind): Promise<Linear> {
  const name = linearName(layer, kind);
  const [rows, channels] = linearShape(checkpoint.config, kind);
  const weights = await checkpoint.read(`${name}.weight`, [rows, channels]);
  if (hasBias(checkpoint.config, kind)) {
    return { rows, channels, weights, bias: await checkpoint.read(`${name}.bias`, [rows]) };
  }
  if (checkpoint.has(`${name}.bias`)) {
    const { architecture } = checkpoint.config;
    throw new SyntaxError(`${checkpoint.name} has ${name}.bias, must not by its config.json (${architecture})`);
  }
  return { rows, channels, weights };
}

/** Reads one transformer layer. */
export async function readLayer(checkpoint: Checkpoint, layer: number): Promise<Layer> {
  const { hidden, headSize, queryKeyNorm } = checkpoint.config;
  const linears: Partial<Record<LinearKind, Linear>> = {};
  for (const kind of LINEAR_KINDS) linears[kind] = await readLinear(checkpoint, layer, kind);
  const norm = (name: string, width: number) => checkpoint.read(`model.layers.${layer}.${name}.weight`, [width]);
  return {
    linears: linears as Record<LinearKind, Linear>,
    attentionNorm: await norm("input_layernorm", hidden),
    mlpNorm: await norm("post_attention_layernorm", hidden),
    ...(queryKeyNorm && {
      queryNorm: await norm("self_attn.q_norm", headSize),
      keyNorm: await norm("self_attn.k_norm", headSize),
    }),
  };
}

/** Reads a whole model into memory. */
export async function readModel(checkpoint: Checkpoint): Promise<Model> {
  const { config } = checkpoint;
  const { vocabulary, hidden, tiedHead } = config;
  const embedding = await checkpoint.read("model.embed_tokens.weight", [vocabulary, hidden]);
  const layers: Layer[] = [];
  for (let layer = 0; layer < config.layers; layer++) layers.push(await readLayer(checkpoint, layer));
  return {
    config,
    embedding,
    layers,
    finalNorm: await checkpoint.read("model.norm.weight", [hidden]),
    head: tiedHead ? embedding : await checkpoint.read("lm_head.weight", [vocabulary, hidden]),
  };
}
