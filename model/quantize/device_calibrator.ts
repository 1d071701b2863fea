// Taking the calibration text through a model on the device while its layers are being quantized, and summing what
// quantization needs to know of each stage's inputs (calibrator.ts is the same on the CPU).
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import { blend } from "../../kernels/matrix/elementwise.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { gemm } from "../../kernels/product/linear.ts";
import type { WeightMatrix } from "../../kernels/product/weight_format.ts";
import { runAhead } from "../../kernels/gpu/run_ahead.ts";
import { addGram, addProducts, summedInputs } from "../../kernels/quantize/token_sums.ts";
import { createSquareMatrix, type SquareMatrix } from "../../kernels/matrix/square_matrix.ts";
import type { ModelConfig } from "../llama/config.ts";
import {
  copyWindows,
  createStreamContext,
  createWindows,
  type DeviceLayer,
  joinWindows,
  passDispatches,
  placeStages,
  stageInputDispatches,
  stageInputOf,
  type StreamContext,
  type StreamWindows,
  WINDOWS_AHEAD,
} from "./device_stream.ts";
import { linearShape, STAGES } from "../llama/layer.ts";
import type { TuningWindow } from "../tune/tuner.ts";
import type { Calibration } from "./quantizing_device.ts";

/** Sums over all calibration text of a stage's inputs x' (quantized) and x (original), in device memory. */
export interface DeviceSums {
  /** Sum of x' x'ᵀ, [channels, channels], upper triangle. */
  readonly gram: SquareMatrix;
  /** f32 [channels, channels]: sum of (x - x') x'ᵀ, where the stage doesn't write to the residual stream. */
  readonly drift?: GPUBuffer;
  /** f32 [channels, hidden]: sum of x' (w (x - x') + r)ᵀ, r what the residual stream lacks; where the stage writes to it. */
  readonly correlation?: GPUBuffer;
}

/** A layer in both models: quantized as far as it is, and as it was where targets are corrected. */
export interface DeviceLayerPair {
  /** With the matrices of earlier stages quantized. */
  readonly quantized?: DeviceLayer | undefined;
  /** As it was. */
  readonly original?: DeviceLayer | undefined;
}

/** The calibration text on its way through a model on the device. */
export interface DeviceCalibrator {
  /** Whether the text goes through the unquantized model too. */
  readonly correctTarget: boolean;
  /** Whether sums are repeated, so that the text goes nowhere and needs no matrices. */
  readonly isStill?: boolean;
  /**
   * Takes the text, where it has come to a stage, through the stage's matrices in the models whose layer is given; stages
   * come in order. `meanwhile` runs each time after some work is submitted.
   */
  pass(pair: DeviceLayerPair, stage: number, meanwhile?: () => void): Promise<void>;
  /**
   * Sums the inputs of the stage that the text has come to, into buffers of `scope`. The original layer must have the
   * stage's matrix where it writes to the residual stream.
   */
  sumStage(
    pair: DeviceLayerPair,
    stage: number,
    scope: BufferScope,
    onShare: (share: number) => void,
  ): Promise<DeviceSums>;
  /**
   * What the unquantized model makes of the windows, once they have come through its last layer; what else the text took is
   * freed.
   *
   * @throws {TypeError} when the text doesn't go through it
   */
  finish(): TuningWindow[];
}

/**
 * Puts calibration windows on their way.
 *
 * @param scope takes over the buffers: 4 * (hidden + widest input) bytes a token, twice that with the original model
 * @throws {RangeError} when there are no windows
 */
export async function createDeviceCalibrator(
  gpu: Gpu,
  scope: BufferScope,
  config: ModelConfig,
  calibration: Calibration,
): Promise<DeviceCalibrator> {
  const { windows, correctTarget } = calibration;
  if (windows.length === 0) throw new RangeError("calibration has 0 windows, must have at least 1");
  const joined = joinWindows(config, windows);
  const context = await createStreamContext(gpu, scope, config, joined);
  const quantized = await createWindows(gpu, scope, config, calibration.embedding, joined);
  const streams = { quantized, ...(correctTarget && { original: await copyWindows(gpu, scope, quantized) }) };

  /** Submits work for windows side by side in every model, then for them as a whole. */
  const forWindows = async (
    pair: DeviceLayerPair,
    dispatchesOf: typeof stageInputDispatches,
    stage: number,
    afterWindows?: (index: number) => void | Promise<void>,
  ) => {
    const layers = (["quantized", "original"] as const).map((kind) => ({
      layer: pair[kind] && placeStages(pair[kind]),
      windows: streams[kind],
    }));
    await runAhead(gpu, joined.length, WINDOWS_AHEAD, async (i) => {
      for (const { layer, windows } of layers) {
        if (layer && windows) gpu.submit(await dispatchesOf(context, layer, windows[i], stage));
      }
      await afterWindows?.(i);
    });
  };
  return {
    correctTarget,
    pass: (pair, stage, meanwhile) => forWindows(pair, passDispatches, stage, meanwhile),
    async sumStage(pair, stage, sumsScope, onShare) {
      const sums = await createSums(context, sumsScope, stage, correctTarget);
      const weights = pair.original?.matrices.get(STAGES[stage].linears[0]);
      await forWindows(pair, stageInputDispatches, stage, async (i) => {
        const [window, original] = [streams.quantized[i], streams.original?.[i]];
        await addWindow(context, sums, { window, original, stage, weights });
        onShare((i + 1) / joined.length);
      });
      return sums;
    },
    finish() {
      if (!streams.original) throw new TypeError("text goes through the quantized model alone, must be corrected");
      const { qkv, gateUp, halves, rotations, cache: { keys, values } } = context;
      const spent = new Set([qkv, gateUp, rotations, keys.buffer, values.buffer, ...(halves ? [halves] : [])]);
      for (const { hidden, kept, normed } of streams.quantized) spent.add(hidden).add(kept).add(normed);
      for (const { kept, normed } of streams.original) spent.add(kept).add(normed);
      spent.forEach(scope.free);
      return streams.original.flatMap(({ hidden }, i) =>
        joined[i].map((tokens, window) => {
          const size = 4 * tokens.length * config.hidden;
          return { tokens, hidden: { buffer: hidden, offset: window * size, size } };
        })
      );
    },
  };
}

async function createSums(
  { gpu, config }: StreamContext,
  scope: BufferScope,
  stage: number,
  correctTarget: boolean,
): Promise<DeviceSums> {
  const { linears: [kind], joinsResidual } = STAGES[stage];
  const [, channels] = linearShape(config, kind);
  const gram = await createSquareMatrix(gpu, scope, "hessian", channels);
  if (!correctTarget) return { gram };
  return joinsResidual
    ? { gram, correlation: await scope.storage("correlation", 4 * channels * config.hidden) }
    : { gram, drift: await scope.storage("drift", 4 * channels * channels) };
}

interface WindowPair {
  readonly window: StreamWindows;
  readonly original: StreamWindows | undefined;
  readonly stage: number;
  /** The stage's matrix as it was, where it writes to the residual stream. */
  readonly weights: WeightMatrix | undefined;
}

/**
 * Adds a window to the sums of a stage: to the Hessian, and to the drift, or to the whole correlation where there are as few
 * rows as the residual stream is wide.
 */
async function addWindow(context: StreamContext, sums: DeviceSums, pair: WindowPair): Promise<void> {
  const { gpu, config: { hidden }, gateUp, qkv, halves } = context;
  const { gram, drift, correlation } = sums;
  const channels = gram.size;
  const tokens = pair.window.range.maxTokens;
  if (pair.original) await subtractInputs(context, channels, pair, pair.original, correlation !== undefined);
  const x = await summedInputs(gpu, [tokens, channels], stageInputOf(context, pair.window, pair.stage), halves);
  await addGram(gpu, x, gram);
  const whole = (buffer: GPUBuffer) => [{ firstRow: 0, rows: channels, buffer }];
  if (drift) {
    const drifted = await summedInputs(gpu, [tokens, channels], gateUp, halves && qkv);
    await addProducts(gpu, drifted, x, whole(drift));
  }
  if (correlation) {
    const lacking = await summedInputs(gpu, [tokens, hidden], qkv, halves && gateUp);
    await addProducts(gpu, x, lacking, whole(correlation));
  }
}

/** Leaves what inputs lack in `gateUp`, and where the whole correlation is wanted what outputs lack in `qkv`. */
async function subtractInputs(
  context: StreamContext,
  channels: number,
  { window, stage, weights }: WindowPair,
  original: StreamWindows,
  lacksOutputs: boolean,
): Promise<void> {
  const { gpu, config: { hidden }, gateUp: drifted, qkv: lacking, halves } = context;
  const { range } = window;
  const inputs = [original, window].map((windows) => stageInputOf(context, windows, stage));
  await subtract(gpu, inputs[0], inputs[1], drifted, range.maxTokens * channels);
  if (!lacksOutputs) return;
  await subtract(gpu, original.hidden, window.hidden, lacking, range.maxTokens * hidden);
  gpu.submit(await gemm(gpu, weights!, { range, x: drifted, y: lacking, addToY: true, halves }));
}

/** difference = x - y. */
async function subtract(gpu: Gpu, x: GPUBuffer, y: GPUBuffer, difference: GPUBuffer, length: number): Promise<void> {
  gpu.copy(y, 0, difference, 0, 4 * length);
  gpu.submit([await blend(gpu, x, difference, length, -1)]);
}
