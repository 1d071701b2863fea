/**
 * Taking the calibration text through a model on the device while its layers are being quantized, and summing what
 * quantization needs to know of each stage's inputs (calibrator.ts is the same on the CPU).
 *
 * @module
 */
import { addGram } from "../../kernels/quantize/add_gram.ts";
import { type BufferScope, createBufferScope } from "../../kernels/gpu/buffer_scope.ts";
import { blend } from "../../kernels/matrix/elementwise.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { gemm } from "../../kernels/product/linear.ts";
import { outerUpdate, updateWords } from "../../kernels/quantize/outer_update.ts";
import { createSquareMatrix, type SquareMatrix } from "../../kernels/matrix/square_matrix.ts";
import { uploadUniforms } from "../../kernels/gpu/uniforms.ts";
import type { ModelConfig } from "../llama/config.ts";
import {
  advanceDispatches,
  createDeviceStream,
  createStreamScratch,
  type DeviceLayer,
  type DeviceStream,
  inputDispatches,
  stageInputOf,
  type StreamScratch,
  type StreamWindow,
} from "./device_stream.ts";
import { linearShape, STAGES } from "../llama/layer.ts";

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
  readonly quantized?: DeviceLayer;
  /** As it was. */
  readonly original?: DeviceLayer;
}

/** The calibration text on its way through a model on the device. */
export interface DeviceCalibrator {
  /**
   * Takes the text through the matrices of the stage before `stage`, or with `stage` 4 through a layer's last ones, in the
   * models whose layer is given; stages must come in order.
   */
  advance(pair: DeviceLayerPair, stage: number): Promise<void>;
  /**
   * Sums a stage's inputs, once the text has come there, into buffers of `scope`. The original layer must have the stage's
   * matrix where it writes to the residual stream.
   */
  sumStage(
    pair: DeviceLayerPair,
    stage: number,
    scope: BufferScope,
    onShare: (share: number) => void,
  ): Promise<DeviceSums>;
}

/** Windows that are submitted before the host waits for the device, so that submitted work doesn't pile up. */
const WINDOWS_AHEAD = 4;

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
  embedding: Float32Array,
  windows: readonly Uint32Array[],
  withOriginal: boolean,
): Promise<DeviceCalibrator> {
  if (windows.length === 0) throw new RangeError("calibration has 0 windows, must have at least 1");
  const scratch = await createStreamScratch(scope, config, windows);
  const start = () => createDeviceStream(gpu, scope, config, embedding, windows);
  const streams = { quantized: await start(), ...(withOriginal && { original: await start() }) };
  const kinds = ["quantized", "original"] as const;

  /** Submits work for every window of every stream, then for the window as a whole. */
  const forWindows = async (
    pair: DeviceLayerPair,
    dispatchesOf: (
      layer: DeviceLayer,
      stream: DeviceStream,
      window: StreamWindow,
    ) => ReturnType<typeof inputDispatches>,
    afterWindow: (index: number) => Promise<void> = () => Promise.resolve(),
  ) => {
    for (let i = 0; i < windows.length; i++) {
      for (const kind of kinds) {
        const [stream, layer] = [streams[kind], pair[kind]];
        if (stream && layer) gpu.submit(await dispatchesOf(layer, stream, stream.windows[i]));
      }
      await afterWindow(i);
      if (i % WINDOWS_AHEAD === WINDOWS_AHEAD - 1) await gpu.wait();
    }
  };
  return {
    advance: (pair, stage) =>
      forWindows(
        pair,
        (layer, stream, window) => advanceDispatches(gpu, config, layer, stream, window, scratch, stage),
      ),
    async sumStage(pair, stage, sumsScope, onShare) {
      const { sums, add } = await createSums(gpu, config, sumsScope, scratch, stage, streams, pair);
      const toInput = (layer: DeviceLayer, stream: DeviceStream, window: StreamWindow) =>
        inputDispatches(gpu, config, layer, stream, window, stage);
      await forWindows(pair, toInput, async (i) => {
        await add(i);
        onShare((i + 1) / windows.length);
      });
      return sums;
    },
  };
}

interface StreamPair {
  readonly quantized: DeviceStream;
  readonly original?: DeviceStream;
}

/** Makes a stage's sums, and the function that adds a window to them. */
async function createSums(
  gpu: Gpu,
  config: ModelConfig,
  scope: BufferScope,
  { gateUp: drifted, qkv: lacking }: StreamScratch,
  stage: number,
  { quantized, original }: StreamPair,
  pair: DeviceLayerPair,
): Promise<{ sums: DeviceSums; add: (window: number) => Promise<void> }> {
  const { hidden } = config;
  const { linears: [kind], joinsResidual } = STAGES[stage];
  const [, channels] = linearShape(config, kind);
  const gram = await createSquareMatrix(gpu, scope, "hessian", channels);
  const correct = original && await createCorrection();
  return {
    sums: { gram, ...correct?.sums },
    async add(index) {
      const window = quantized.windows[index];
      const x = stageInputOf(quantized, window, stage);
      await addGram(gpu, window.range.maxTokens, x, gram);
      await correct?.add(window, original!.windows[index], x);
    },
  };

  /** Drift, or the whole correlation where there are as few rows as the residual stream is wide. */
  async function createCorrection() {
    const sum = await scope.storage(
      joinsResidual ? "correlation" : "drift",
      4 * channels * (joinsResidual ? hidden : channels),
    );
    const add = async (window: StreamWindow, other: StreamWindow, x: GPUBuffer) => {
      const { range } = window;
      const tokens = range.maxTokens;
      await subtract(gpu, stageInputOf(original!, other, stage), x, drifted, tokens * channels);
      if (!joinsResidual) return await addProducts(gpu, tokens, [drifted, channels], [x, channels], sum);
      await subtract(gpu, other.hidden, window.hidden, lacking, tokens * hidden);
      const weights = pair.original!.matrices.get(kind)!;
      gpu.submit(await gemm(gpu, weights, { range, x: drifted, y: lacking, addToY: true }));
      await addProducts(gpu, tokens, [x, channels], [lacking, hidden], sum);
    };
    return { sums: joinsResidual ? { correlation: sum } : { drift: sum }, add };
  }
}

/** difference = x - y. */
async function subtract(gpu: Gpu, x: GPUBuffer, y: GPUBuffer, difference: GPUBuffer, length: number): Promise<void> {
  gpu.copy(y, 0, difference, 0, 4 * length);
  gpu.submit([await blend(gpu, x, difference, length, -1)]);
}

/** Adds the sum over tokens of a bᵀ to c; a and b are f32 [tokens, their width]. */
async function addProducts(
  gpu: Gpu,
  tokens: number,
  [a, m]: readonly [GPUBuffer, number],
  [b, n]: readonly [GPUBuffer, number],
  c: GPUBuffer,
): Promise<void> {
  const range = { m, n, k: tokens };
  using scope = createBufferScope(gpu);
  const [words] = await uploadUniforms(gpu, scope, [updateWords(range)]);
  const rows = (buffer: GPUBuffer, stride: number) => ({ buffer, stride });
  gpu.submit([
    await outerUpdate(gpu, { range, words, a: rows(a, m), b: rows(b, n), c: rows(c, n) }),
  ]);
}
