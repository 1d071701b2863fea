// Room for the keys and values of sequences.
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { type CacheBits, cacheRowBytes, type KeyValueCache } from "../../kernels/attention/key_value_cache.ts";
import type { ModelConfig } from "../llama/config.ts";

/** Sequences have room for a multiple of so many tokens, since a kernel is compiled for each capacity. */
const CAPACITY_STEP = 256;

/** Tokens that a sequence has room for in the cache, where `tokens` are asked for. */
export function roundCapacity(tokens: number): number {
  return Math.ceil(tokens / CAPACITY_STEP) * CAPACITY_STEP;
}

/** Bytes of a sequence's key-value cache. @param bits of a key's or value's element */
export function cacheBytes(config: ModelConfig, capacity: number, bits?: CacheBits): number {
  const { keys, values } = cacheRowBytes(config, bits);
  return config.layers * config.keyValueHeads * roundCapacity(capacity) * (keys + values);
}

/**
 * Checks that sequences can have a capacity.
 *
 * @throws {RangeError} when the model's context is shorter, or the device can't bind so long a cache
 */
export function checkCapacity(
  gpu: Gpu,
  config: ModelConfig,
  capacity: number,
  sequences = 1,
  bits?: CacheBits,
): void {
  if (!(Number.isInteger(capacity) && capacity >= 1 && capacity <= config.context)) {
    const wanted = `must be 1 to the model's context of ${config.context} and whole`;
    throw new RangeError(`capacity is ${capacity} tokens, ${wanted}`);
  }
  const planeBytes = sequences * config.keyValueHeads * roundCapacity(capacity) * cacheRowBytes(config, bits).keys;
  const { maxStorageBufferBindingSize: limit } = gpu.device.limits;
  if (planeBytes > limit) {
    const of = sequences === 1 ? `${capacity} tokens` : `${sequences} sequences of ${capacity} tokens`;
    throw new RangeError(`a layer's keys of ${of} have ${planeBytes} bytes, the device binds ${limit}`);
  }
}

/**
 * Makes the caches of all layers, in as few buffers as the device can bind. A plane holds one sequence after the other, each
 * with the same capacity: kernels find a sequence by its index, so that the same bindings serve all of them and one
 * dispatch any of them.
 *
 * @param capacity as {@linkcode roundCapacity} gives it
 * @throws {OutOfMemoryError} when the device has no room
 */
export async function createCaches(
  gpu: Gpu,
  scope: BufferScope,
  config: ModelConfig,
  capacity: number,
  sequences = 1,
  bits: CacheBits = 16,
): Promise<KeyValueCache[]> {
  const { layers, keyValueHeads } = config;
  const { maxStorageBufferBindingSize: limit } = gpu.device.limits;
  const rows = sequences * keyValueHeads * capacity;
  const rowBytes = cacheRowBytes(config, bits);
  const runs = Math.ceil(layers / Math.max(1, Math.floor(limit / (rows * rowBytes.keys))));
  const runLayers = Math.ceil(layers / runs);
  const caches: KeyValueCache[] = [];
  for (let first = 0; first < layers; first += runLayers) {
    const count = Math.min(runLayers, layers - first);
    const last = first + count - 1;
    const plane = async (name: "keys" | "values") => {
      const size = rows * rowBytes[name];
      const buffer = await scope.storage(`${name} of layers ${first} to ${last}`, count * size);
      return (i: number) => ({ buffer, offset: i * size, size });
    };
    const [keys, values] = [await plane("keys"), await plane("values")];
    for (let i = 0; i < count; i++) caches.push({ bits, capacity, keys: keys(i), values: values(i) });
  }
  return caches;
}
