// Weights in shared memory, so that every worker sees them without a copy.
import { release } from "./release.ts";

/** Copies an array into shared memory, unless it lies there already. */
export function shareArray(array: Float32Array): Float32Array {
  if (array.buffer instanceof SharedArrayBuffer) return array;
  const shared = new Float32Array(new SharedArrayBuffer(array.byteLength));
  shared.set(array);
  return shared;
}

/** Moves an array into shared memory and frees it where it was. */
export function moveToShared(array: Float32Array): Float32Array {
  const shared = shareArray(array);
  if (shared !== array) release(array);
  return shared;
}

/** A copy of a value (a model, a layer) whose f32 arrays all lie in shared memory. Arrays that were one stay one. */
export function shareDeep<T>(value: T): T {
  const seen = new Map<Float32Array, Float32Array>();
  const share = (value: unknown): unknown => {
    if (value instanceof Float32Array) {
      const known = seen.get(value) ?? shareArray(value);
      seen.set(value, known);
      return known;
    }
    if (Array.isArray(value)) return value.map(share);
    if (typeof value === "object" && value !== null) {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, share(item)]));
    }
    return value;
  };
  return share(value) as T;
}
