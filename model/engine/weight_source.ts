/**
 * Where an engine's weights come from: a checkpoint, read tensor by tensor, a model in memory, or random numbers.
 *
 * @module
 */
import type { HalfMatrix } from "../../kernels/matrix/f16_matrix.ts";
import type { HostMatrix } from "../../kernels/product/weight_format.ts";
import type { Checkpoint } from "../files/checkpoint.ts";
import type { ModelConfig } from "../llama/config.ts";
import { LINEAR_KINDS, type LinearKind, linearName, linearShape } from "../llama/layer.ts";
import type { Model } from "../llama/llama.ts";
import type { PackedCheckpoint } from "../files/packed_checkpoint.ts";
import { isPlane } from "../files/packed_file.ts";

/** Weights of a model by name; each is read when it is asked for. */
export interface WeightSource {
  /** Sizes and constants. */
  readonly config: ModelConfig;
  /** Whether all layers hold the same numbers, so that the device can copy them. */
  readonly sameLayers?: boolean;
  /** The matrix of a linear layer, packed where the source has it packed. */
  linear(layer: number, kind: LinearKind): Promise<HostMatrix>;
  /** f16 [rows, channels]. */
  half(name: string, rows: number, channels: number): Promise<HalfMatrix>;
  /** f32 [length]; undefined where the source has no such tensor. */
  vector(name: string, length: number): Promise<Float32Array<ArrayBuffer> | undefined>;
}

/** Rounds weights to f16, which the engine holds. @throws {RangeError} for one that is NaN or beyond f16 */
function toHalf(name: string, values: ArrayLike<number>, rows: number, channels: number): HalfMatrix {
  const weights = Float16Array.from(values);
  const bad = weights.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) {
    const what = Number.isNaN(weights[bad]) ? "NaN" : "beyond f16";
    throw new RangeError(`${name}[${bad}] is ${what}, must be within 65504`);
  }
  return { kind: "f16", rows, channels, weights };
}

/** Weights of a checkpoint. A weight that is NaN or beyond f16's range is an error, since the engine holds f16. */
export function checkpointSource(checkpoint: Checkpoint): WeightSource {
  const half = async (name: string, rows: number, channels: number) =>
    toHalf(`${checkpoint.name}: ${name}`, await checkpoint.read(name, [rows, channels]), rows, channels);
  const { config } = checkpoint;
  const packed = "packed" in checkpoint ? checkpoint as PackedCheckpoint : undefined;
  return {
    config,
    half,
    async linear(layer, kind) {
      const name = linearName(layer, kind);
      const [rows, channels] = linearShape(config, kind);
      if (!packed?.packed.has(name)) return await half(`${name}.weight`, rows, channels);
      const tensor = await packed.readPacked(name);
      if (tensor.rows !== rows || tensor.channels !== channels) {
        throw new SyntaxError(
          `${checkpoint.name}: ${name} is packed as [${tensor.rows}, ${tensor.channels}], must be [${rows}, ${channels}]`,
        );
      }
      return { kind: "packed", tensor };
    },
    async vector(name, length) {
      return checkpoint.has(name) ? Float32Array.from(await checkpoint.read(name, [length])) : undefined;
    },
  };
}

function planeBytes({ file, packed }: PackedCheckpoint, name: string): number {
  let bytes = 0;
  for (const info of file.tensors.values()) {
    if (info.name.startsWith(`${name}.`) && isPlane(info.name, packed)) bytes += info.sizeBytes;
  }
  return bytes;
}

/** Bytes of device memory that a checkpoint's weights take, without reading them. */
export function weightBytes(checkpoint: Checkpoint): number {
  const { config } = checkpoint;
  const { layers, vocabulary, hidden, tiedHead } = config;
  const packed = "packed" in checkpoint ? checkpoint as PackedCheckpoint : undefined;
  let bytes = 2 * vocabulary * hidden * (tiedHead ? 1 : 2) + 4 * hidden * (2 * layers + 1);
  for (let layer = 0; layer < layers; layer++) {
    for (const kind of LINEAR_KINDS) {
      const name = linearName(layer, kind);
      const [rows, channels] = linearShape(config, kind);
      bytes += packed?.packed.has(name) ? planeBytes(packed, name) : 2 * rows * channels;
    }
  }
  return bytes;
}

/** Weights of a model in host memory, rounded to f16; one that is NaN or beyond f16's range is an error. */
export function modelSource({ config, layers, embedding, head, finalNorm }: Model): WeightSource {
  const matrices: Readonly<Record<string, Float32Array>> = {
    "model.embed_tokens.weight": embedding,
    "lm_head.weight": head,
  };
  const vectors = new Map<string, Float32Array>([["model.norm.weight", finalNorm]]);
  for (const [i, { linears, attentionNorm, mlpNorm, queryNorm, keyNorm }] of layers.entries()) {
    const prefix = `model.layers.${i}`;
    vectors.set(`${prefix}.input_layernorm.weight`, attentionNorm);
    vectors.set(`${prefix}.post_attention_layernorm.weight`, mlpNorm);
    if (queryNorm) vectors.set(`${prefix}.self_attn.q_norm.weight`, queryNorm);
    if (keyNorm) vectors.set(`${prefix}.self_attn.k_norm.weight`, keyNorm);
    for (const kind of LINEAR_KINDS) {
      const { bias } = linears[kind];
      if (bias) vectors.set(`${linearName(i, kind)}.bias`, bias);
    }
  }
  // A promise also of an error, as from a checkpoint.
  const half = (name: string, weights: Float32Array, rows: number, channels: number) =>
    Promise.try(() => toHalf(name, weights, rows, channels));
  return {
    config,
    linear(layer, kind) {
      const { weights, rows, channels } = layers[layer].linears[kind];
      return half(`${linearName(layer, kind)}.weight`, weights, rows, channels);
    },
    half: (name, rows, channels) => half(name, matrices[name], rows, channels),
    vector(name) {
      const values = vectors.get(name);
      return Promise.resolve(values && Float32Array.from(values));
    },
  };
}
