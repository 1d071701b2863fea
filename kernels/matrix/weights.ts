// Weights in f32 on their way to what they become on the device.
import type { BufferScope } from "../gpu/buffer_scope.ts";

/** f32 [rows, channels]: on the device, or of the host. */
export type Weights = GPUBuffer | Float32Array<ArrayBuffer>;

/**
 * Weights on the device.
 *
 * @param scope owns those that come from the host
 * @throws {TypeError} when their length doesn't fit the shape
 */
export async function placeWeights(
  scope: BufferScope,
  [rows, channels]: readonly [rows: number, channels: number],
  weights: Weights,
): Promise<GPUBuffer> {
  const isOfHost = weights instanceof Float32Array;
  const length = isOfHost ? weights.length : weights.size / 4;
  if (length !== rows * channels) {
    throw new TypeError(`matrix of ${rows} x ${channels} has ${length} weights, must have ${rows * channels}`);
  }
  return isOfHost ? await scope.upload("weights", weights) : weights;
}
