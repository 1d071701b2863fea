// What a checkpoint is, and reading its tensors one by one.
import type { CarriedTensor } from "./carried_blocks.ts";
import type { ModelConfig } from "../llama/config.ts";
import {
  allLayerTensors,
  hasBias,
  LINEAR_KINDS,
  type LinearKind,
  linearName,
  linearShape,
  NORM_KINDS,
  type NormKind,
  normName,
  normWidth,
} from "../llama/layer.ts";
import type { Layer, Linear, Model } from "../llama/llama.ts";
import { checkFinite, decodeWeights, decodeWeightsInto, findNotFiniteBits, WEIGHT_DTYPES } from "./numbers.ts";
import { clipText } from "../host/quote_text.ts";
import { release } from "../host/release.ts";
import { DTYPE_BYTES } from "./safetensors.ts";
import type { TensorToWrite } from "./safetensors_writer.ts";
import { checkShape, type PlacedTensor, readStoredBytes } from "./tensor_layout.ts";

/** A checkpoint whose headers have been read; dispose it to close its files. */
export interface Checkpoint extends Disposable {
  /** What error messages call it: the directory or file that it was opened from, and can be opened from again. */
  readonly name: string;
  /** Configuration of the model. */
  readonly config: ModelConfig;
  /** Whether the checkpoint holds this tensor; names and values are those of {@linkcode layerTensors}. */
  has(name: string): boolean;
  /**
   * Reads a tensor as f32; a packed one is decoded.
   *
   * @throws {SyntaxError} when it is missing, has another shape, or holds NaN or infinity
   */
  read(name: string, shape: readonly number[]): Promise<Float32Array>;
  /** Shapes of the tensors that can be read, by name; of a packed matrix [rows, channels] of what it decodes to. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /**
   * Reads rows of a tensor (elements of its first dimension) as f32, without the others where they lie apart.
   *
   * @throws {SyntaxError} when the tensor is missing, or holds NaN or infinity
   * @throws {RangeError} when it hasn't these rows
   */
  readRows(name: string, first: number, count: number): Promise<Float32Array>;
  /** Reads a text file that belongs to the checkpoint (tokenizer.json, ...); undefined where there is none. */
  readText(file: string): Promise<string | undefined>;
  /** Paths of the weight files. */
  readonly files: readonly string[];
  /** Every tensor, as it goes into a safetensors file. */
  readonly tensors: readonly CarriedTensor[];
}

/**
 * A tensor of a file, to be copied into another; reading it fails with a SyntaxError where a weight is NaN or infinite.
 */
export function tensorToWrite(stored: PlacedTensor): TensorToWrite {
  const { file, info } = stored;
  const bytes = async () => {
    const found = await readStoredBytes(stored);
    const bad = findNotFiniteBits(found, info.dtype);
    if (bad >= 0) {
      const size = DTYPE_BYTES[info.dtype];
      const value = decodeWeights(found.subarray(bad * size, (bad + 1) * size), info.dtype);
      checkFinite(file.source.name, info.name, value, bad);
    }
    return found;
  };
  return { ...info, bytes };
}

/**
 * The configuration of a model with these tensors: a head of its own counts though embeddings are tied, as in
 * transformers.
 */
export function withOwnHead(config: ModelConfig, tensors: Pick<ReadonlySet<string>, "has">): ModelConfig {
  return { ...config, tiedHead: config.tiedHead && !tensors.has("lm_head.weight") };
}

/** Of a tensor what says whether the model computes with it. */
export type NamedTensor = Pick<TensorToWrite, "name"> & { readonly dtype: string };

/** Whether a model computes without a tensor by its nature: integers, and frequencies that the configuration gives. */
export function isIgnorable({ name, dtype }: NamedTensor): boolean {
  return /^([IU]\d|BOOL)/.test(dtype) || /\.rotary_emb\.inv_freq$|\.attn_rot_embd\.weight$/.test(name);
}

/**
 * Fails for a tensor of a layer, the embedding, the last norm or the head that the model has no use for by its
 * configuration: it would compute other numbers.
 *
 * @param checkpoint what the error message calls it
 * @throws {SyntaxError}
 */
export function refuseUnusedTensors(checkpoint: string, config: ModelConfig, tensors: Iterable<NamedTensor>): void {
  const used = allLayerTensors(config);
  const outside = /^(model\.embed_tokens|model\.norm|lm_head)\.(?!weight$)/;
  for (const tensor of tensors) {
    const { name } = tensor;
    const [, layer = Infinity] = /^model\.layers\.(\d+)\./.exec(name) ?? [];
    const isUnused = Number(layer) < config.layers ? !used.has(name) : outside.test(name);
    if (!isUnused || isIgnorable(tensor)) continue;
    throw new SyntaxError(`${checkpoint} has ${clipText(name)}, must not by its config.json (${config.architecture})`);
  }
}

/** Fails for a tensor that the model needs by its configuration and hasn't. @throws {SyntaxError} */
export function refuseMissingTensors({ name: checkpoint, config, has }: Checkpoint): void {
  const outside = ["model.embed_tokens.weight", "model.norm.weight", ...(config.tiedHead ? [] : ["lm_head.weight"])];
  const missing = [...outside, ...allLayerTensors(config).keys()].find((name) => !has(name));
  if (missing !== undefined) throw new SyntaxError(`${checkpoint}: no tensor ${missing}`);
}

/** Largest text file of a checkpoint that is read; the largest tokenizers have some 35 MB. */
export const MAX_TEXT_BYTES = 2 ** 27;

/** Reads a weight tensor of a file as f32. @throws {SyntaxError} when it has another shape, or holds NaN or infinity */
export async function readWeights(stored: PlacedTensor, shape: readonly number[]): Promise<Float32Array> {
  checkShape(stored.file.source.name, stored.info, shape);
  return await readFinite(stored);
}

/** Reads a tensor as f32. @throws {SyntaxError} when it holds NaN or infinity */
export async function readFinite(stored: PlacedTensor): Promise<Float32Array> {
  const { file, info } = stored;
  if (!WEIGHT_DTYPES.includes(info.dtype)) {
    const known = WEIGHT_DTYPES.join(", ");
    throw new SyntaxError(
      `${file.source.name}: tensor ${clipText(info.name)} has dtype ${info.dtype}, must be one of ${known}`,
    );
  }
  const values = await decodeTensor(stored);
  checkFinite(file.source.name, info.name, values);
  return values;
}

/** Bytes of a tensor that are read at a time, so that memory holds its values and only so many of its bytes. */
const PART_BYTES = 8 * 2 ** 20;

async function decodeTensor(stored: PlacedTensor): Promise<Float32Array> {
  const { file, info: { dtype, offset, sizeBytes }, order } = stored;
  if (order) return decodeWeights(await readStoredBytes(stored), dtype);
  const values = new Float32Array(sizeBytes / DTYPE_BYTES[dtype]);
  for (let start = 0; start < sizeBytes; start += PART_BYTES) {
    const bytes = await file.source.read(offset + start, Math.min(PART_BYTES, sizeBytes - start));
    decodeWeightsInto(bytes, dtype, values.subarray(start / DTYPE_BYTES[dtype]));
    release(bytes);
  }
  return values;
}

/** Reads one linear layer. @throws {SyntaxError} */
export async function readLinear(checkpoint: Checkpoint, layer: number, kind: LinearKind): Promise<Linear> {
  const name = linearName(layer, kind);
  const [rows, channels] = linearShape(checkpoint.config, kind);
  const weights = await checkpoint.read(`${name}.weight`, [rows, channels]);
  if (!hasBias(checkpoint.config, kind)) return { rows, channels, weights };
  return { rows, channels, weights, bias: await checkpoint.read(`${name}.bias`, [rows]) };
}

export type LayerNorms = Omit<Layer, "linears">;

export async function readNorms(checkpoint: Checkpoint, layer: number): Promise<LayerNorms> {
  const norms: Partial<Record<NormKind, Float32Array>> = {};
  for (const kind of NORM_KINDS) {
    const width = normWidth(checkpoint.config, kind);
    if (width !== undefined) norms[kind] = await checkpoint.read(normName(layer, kind), [width]);
  }
  return norms as LayerNorms;
}

export async function readLayer(checkpoint: Checkpoint, layer: number): Promise<Layer> {
  const linears: Partial<Record<LinearKind, Linear>> = {};
  for (const kind of LINEAR_KINDS) linears[kind] = await readLinear(checkpoint, layer, kind);
  return { linears: linears as Record<LinearKind, Linear>, ...await readNorms(checkpoint, layer) };
}

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
