// Quantizing a matrix for the GPU: there as far as it can, and by the CPU's workers from what was measured there.
import { blockRanges } from "../../kernels/gpu/block_ranges.ts";
import { createBufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import type { PackedMatrix } from "../../kernels/matrix/packed_matrix.ts";
import type { Weights } from "../../kernels/matrix/weight_parts.ts";
import { channelsOf, type DeviceFactor } from "../../kernels/quantize/factorize.ts";
import { quantizeToGrid } from "../../kernels/quantize/grid_quantizer.ts";
import { type DeviceKnowledge, quantizeMatrixOnDevice, turnTarget } from "../../kernels/quantize/quantize_matrix.ts";
import { stripGroups } from "../../quant/baselines/strip_layout.ts";
import { pickStrips } from "../../quant/baselines/strip_scales.ts";
import {
  joinStripScales,
  packStrips,
  stripGrid,
  type StripScales,
  type StripTensor,
} from "../../quant/baselines/strip_tensor.ts";
import type { StripQuantizer } from "../../quant/baselines/strips.ts";
import { channelWeightsOf } from "../../quant/channel_weights.ts";
import { TILE_ROWS } from "../../quant/format.ts";
import { pickByWeights, picksByWeights } from "../../quant/refine_pick.ts";
import type { TwobitQuantizer } from "../../quant/twobit.ts";
import { quantizeInParts } from "./cpu_device.ts";
import { release } from "../host/release.ts";
import type { Layer } from "../llama/llama.ts";
import type { QuantizePool } from "./quantize_tasks.ts";
import type { StageJob, StoredLayer } from "./quantizing_device.ts";

/** What a stage's matrices may know of their input. */
export interface StageKnowledge {
  /** For error feedback. */
  readonly knowledge: DeviceKnowledge | undefined;
  /** f64 [channels]: the Hessian's diagonal, for quantizers that weigh channels. */
  readonly diagonal: Float64Array | undefined;
}

export interface DeviceMatrix {
  readonly shape: readonly [rows: number, channels: number];
  /** f32 [rows, channels]. */
  readonly weights: Float32Array<ArrayBuffer>;
  /** The same, where they lie on the device. */
  readonly placed: Weights;
}

/** What of it a quantizer asks to know. */
function knownBy(
  { feedback, weighsChannels, correctTarget }: TwobitQuantizer | StripQuantizer,
  { knowledge, diagonal }: StageKnowledge,
) {
  const { factor } = knowledge ?? {};
  return {
    knowledge: feedback && knowledge && factor && (correctTarget ? knowledge : { factor }),
    diagonal: weighsChannels ? diagonal : undefined,
  };
}

/** Quantizes a matrix to the packed format on the device. */
export async function quantizeTwobitOnDevice(
  gpu: Gpu,
  { shape, weights, placed }: DeviceMatrix,
  quantizer: TwobitQuantizer,
  known: StageKnowledge,
): Promise<PackedMatrix> {
  const { settings } = quantizer;
  const { knowledge, diagonal } = knownBy(quantizer, known);
  const channelWeights = diagonal && channelWeightsOf(diagonal);
  const picks = picksByWeights(settings.pick) && settings.refineEvery !== "none"
    ? pickByWeights(weights, shape, settings, knowledge?.factor.diagonal ?? channelWeights)
    : undefined;
  const { refineEvery, outliers } = settings;
  const changes = { refineEvery, outliers, ...(picks && { picks }) };
  return await quantizeMatrixOnDevice(
    gpu,
    shape,
    placed,
    changes,
    knowledge ?? (channelWeights && { channelWeights }),
  );
}

/** Quantizes a matrix to a baseline's layout: scales by the workers, error feedback to them on the device. */
export async function quantizeStripsOnDevice(
  gpu: Gpu,
  pool: QuantizePool,
  { shape, weights, placed }: DeviceMatrix,
  quantizer: StripQuantizer,
  known: StageKnowledge,
): Promise<StripTensor> {
  const [rows, channels] = shape;
  const { settings: { layout } } = quantizer;
  const { knowledge } = knownBy(quantizer, known);
  if (!knowledge) throw new TypeError("quantizer has no error feedback, must have it on the device");
  const { factor, drift, correlation } = knowledge;
  using scope = createBufferScope(gpu);
  const transposed = await turnTarget(gpu, scope, shape, placed, knowledge);
  const target = drift || correlation ? await readTarget(gpu, transposed, rows, factor) : weights;
  const scales = await fitScales(pool, { shape, weights: target }, quantizer, factor.diagonal);
  const grid = stripGrid(layout, rows, stripGroups(layout, channels, scales.fourBit), scales);
  const codes = await quantizeToGrid(gpu, transposed, grid, factor);
  const packed = packStrips(layout, rows, channels, codes, scales);
  release(codes);
  return packed;
}

/** Channels that are read back at a time, so that the host doesn't hold a target twice. */
const READ_CHANNELS = 512;

/** Reads a target back: f32 [rows, channels], in the natural order. */
async function readTarget(
  gpu: Gpu,
  transposed: GPUBuffer,
  rows: number,
  factor: DeviceFactor,
): Promise<Float32Array<ArrayBuffer>> {
  const { channels } = factor;
  const order = channelsOf(factor);
  const target = new Float32Array(rows * channels);
  for (const { first, size } of blockRanges(channels, READ_CHANNELS)) {
    const ordered = new Float32Array(await gpu.read(transposed, 4 * rows * size, 4 * rows * first));
    for (let position = 0; position < size; position++) {
      const channel = order[first + position];
      for (let row = 0; row < rows; row++) target[row * channels + channel] = ordered[position * rows + row];
    }
    release(ordered);
  }
  return target;
}

/** Finds the scales of a strip layout, each worker those of some tiles. */
async function fitScales(
  pool: QuantizePool,
  { shape: [rows, channels], weights }: Pick<DeviceMatrix, "shape" | "weights">,
  { settings }: StripQuantizer,
  importance: Float64Array,
): Promise<StripScales> {
  const fourBit = pickStrips(settings.layout, weights, rows, importance);
  const partRows = TILE_ROWS * Math.ceil(rows / TILE_ROWS / pool.size);
  const tasks = blockRanges(rows, partRows).map(({ first, size }) => ({
    settings,
    matrix: { weights: weights.slice(first * channels, (first + size) * channels), rows: size, channels },
    importance,
    fourBit,
  }));
  return joinStripScales(await pool.map("fitStrips", tasks));
}

/** Quantizes matrices by the workers alone; each gets the rows that it works on. */
export function quantizeByWorkers(
  pool: QuantizePool,
  quantizers: StageJob["quantizers"],
  linears: Layer["linears"],
  { diagonal }: StageKnowledge,
): Promise<StoredLayer> {
  return quantizeInParts(pool, quantizers, linears, (quantizer, linear, [firstTile, endTile]) => {
    const { channels } = linear;
    const [first, end] = [firstTile * TILE_ROWS, Math.min(linear.rows, endTile * TILE_ROWS)];
    const weights = linear.weights.slice(first * channels, end * channels);
    return {
      linear: { weights, rows: end - first, channels },
      quantizer,
      tiles: [0, endTile - firstTile],
      ...(quantizer.weighsChannels && diagonal && { diagonal }),
    };
  });
}
