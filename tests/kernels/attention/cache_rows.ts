// Keys and values as caches of 16 and of 8 bits hold them, on the CPU.
import { type CacheBits, cacheRowBytes, type KeyValueCache } from "../../../kernels/attention/key_value_cache.ts";
import type { Gpu } from "../../../kernels/gpu/gpu.ts";
import { assert } from "../../assert.ts";

/** Where keys begin and the factors of key and value are, of a row of all heads. */
function placesIn(row: number, capacity: number, size: number) {
  const [head, token] = [Math.floor(row / capacity), row % capacity];
  const first = head * capacity * (size + 8);
  return { bytes: [first + token * size, row * size], factors: first + capacity * size + 8 * token };
}

/** What planes of keys and values hold of rows [heads, capacity, size]; with 8 bits as parts/cache_bytes.wgsl says. */
export function packCache(
  keys: Float32Array,
  values: Float32Array,
  capacity: number,
  size: number,
  bits: CacheBits = 16,
) {
  if (bits === 16) return [keys, values].map((rows) => new Uint8Array(Float16Array.from(rows).buffer));
  const bytes = cacheRowBytes({ headSize: size }, bits);
  const rows = keys.length / size;
  const planes = [new Uint8Array(rows * bytes.keys), new Uint8Array(rows * bytes.values)];
  const factors = new DataView(planes[0].buffer);
  for (let row = 0; row < rows; row++) {
    for (const [part, plane] of [keys, values].entries()) {
      const own = plane.subarray(row * size, (row + 1) * size);
      const largest = own.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const codes = own.map((value) => 128 + Math.round(value * 127 / (largest || 1)));
      const places = placesIn(row, capacity, size);
      planes[part].set(codes, places.bytes[part]);
      factors.setFloat32(places.factors + 4 * part, largest * 256 / 127, true);
    }
  }
  return planes;
}

/** The rows of keys and values that planes stand for. */
export function unpackCache(
  keys: ArrayBuffer,
  values: ArrayBuffer,
  capacity: number,
  size: number,
  bits: CacheBits = 16,
) {
  if (bits === 16) return [keys, values].map((plane) => Float32Array.from(new Float16Array(plane)));
  const bytes = cacheRowBytes({ headSize: size }, bits);
  const rows = values.byteLength / bytes.values;
  const factors = new DataView(keys);
  return [keys, values].map((plane, part) => {
    const codes = new Uint8Array(plane);
    return Float32Array.from({ length: rows * size }, (_, i) => {
      const places = placesIn(Math.floor(i / size), capacity, size);
      const factor = factors.getFloat32(places.factors + 4 * part, true);
      return (codes[places.bytes[part] + i % size] - 128) / 256 * factor;
    });
  });
}

/** The rows of a cache. */
export async function readCache(gpu: Gpu, { keys, values, capacity, bits }: KeyValueCache, size: number) {
  return unpackCache(await gpu.read(keys.buffer), await gpu.read(values.buffer), capacity, size, bits);
}

/** Values of rows [rows, size] as a cache holds them. */
export function roundRows(rows: Float32Array, size: number, bits?: CacheBits): Float32Array {
  const [keys, values] = packCache(rows, rows, 1, size, bits);
  return unpackCache(keys.buffer, values.buffer, 1, size, bits)[0];
}

/** Asserts that a row was rounded to the nearest that a cache can hold, but for f32's own errors. */
export function assertRounded(row: Float32Array, exact: Float32Array, bits: CacheBits = 16) {
  const largest = exact.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  for (const [i, value] of row.entries()) {
    const step = bits === 8 ? largest / 127 * (0.5 + 2 ** -12) : Math.abs(exact[i]) * 2 ** -10;
    assert(Math.abs(value - exact[i]) <= step, `channel ${i} is ${value}, must be ${exact[i]} within ${step}`);
  }
}
