// Where an engine's weights come from: a checkpoint, read tensor by tensor, a model in memory, or random numbers.
import type { HalfMatrix } from "../../kernels/matrix/f16_matrix.ts";
import type { HostMatrix } from "../../kernels/product/weight_format.ts";
import type { Checkpoint } from "../files/checkpoint.ts";
import type { ModelConfig } from "../llama/config.ts";
import {
  allLayerTensors,
  LINEAR_KINDS,
  type LinearKind,
  linearName,
  linearShape,
  NORM_KINDS,
  normName,
} from "../llama/layer.ts";
import type { Model } from "../llama/llama.ts";
import { isPacked, linearBytes } from "../files/packed_checkpoint.ts";
import { decodeHalves, toF16, WEIGHT_DTYPES } from "../files/numbers.ts";

/** Weights of a model by name; each is read when it is asked for. */
export interface WeightSource {
  readonly config: ModelConfig;
  /** Whether all layers hold the same numbers, so that the device can copy them. */
  readonly sameLayers?: boolean;
  /** The matrix of a linear layer, packed where the source has it packed. */
  linear(layer: number, kind: LinearKind): Promise<HostMatrix>;
  /** f16 [rows, channels], in memory that becomes the caller's. */
  half(name: string, rows: number, channels: number): Promise<HalfMatrix>;
  /** f32 [length]; undefined where the source has no such tensor. */
  vector(name: string, length: number): Promise<Float32Array<ArrayBuffer> | undefined>;
}

/** Weights of a checkpoint. A weight that is NaN or beyond f16's range is an error, since the engine holds f16. */
export function checkpointSource(
  checkpoint: Pick<Checkpoint, "name" | "config" | "has" | "read"> & Partial<Pick<Checkpoint, "tensors">>,
): WeightSource {
  const stored = new Map(checkpoint.tensors?.map((tensor) => [tensor.name, tensor]));
  const half = async (name: string, rows: number, channels: number): Promise<HalfMatrix> => {
    const tensor = stored.get(name);
    const place = `${checkpoint.name}: ${name}`;
    // Of a safetensors file without a detour by f32, on which the host would spend most of a large model's loading.
    const isPlain = tensor && WEIGHT_DTYPES.includes(tensor.dtype) && tensor.shape.join() === [rows, channels].join();
    const weights = isPlain
      ? decodeHalves(place, await tensor.bytes(), tensor.dtype)
      : toF16(place, await checkpoint.read(name, [rows, channels]));
    return { kind: "f16", rows, channels, weights };
  };
  const { config } = checkpoint;
  const packed = isPacked(checkpoint) ? checkpoint : undefined;
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

/** Bytes of device memory that a checkpoint's weights take, without reading them. */
export function weightBytes(checkpoint: Checkpoint): number {
  const { vocabulary, hidden, tiedHead } = checkpoint.config;
  let bytes = 2 * vocabulary * hidden * (tiedHead ? 1 : 2) + 4 * hidden + linearBytes(checkpoint);
  for (const { shape: [rows, channels] } of allLayerTensors(checkpoint.config).values()) {
    if (channels === undefined) bytes += 4 * rows;
  }
  return bytes;
}

/** Weights of a model in host memory, rounded to f16; one that is NaN or beyond f16's range is an error. */
export function modelSource({ config, layers, embedding, head, finalNorm }: Model): WeightSource {
  const tensors = new Map([
    ["model.embed_tokens.weight", embedding],
    ["lm_head.weight", head],
    ["model.norm.weight", finalNorm],
  ]);
  for (const [i, layer] of layers.entries()) {
    for (const kind of NORM_KINDS) {
      const norm = layer[kind];
      if (norm) tensors.set(normName(i, kind), norm);
    }
    for (const kind of LINEAR_KINDS) {
      const { weights, bias } = layer.linears[kind];
      tensors.set(`${linearName(i, kind)}.weight`, weights);
      if (bias) tensors.set(`${linearName(i, kind)}.bias`, bias);
    }
  }
  const read = (name: string) => Promise.resolve(tensors.get(name)!);
  return checkpointSource({ name: "model in memory", config, has: (name) => tensors.has(name), read });
}
