// Hessians of the unquantized model, kept on the device, so that many quantizers meet the same ones and the text goes
// through the model once.
import { type BufferScope, createBufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { createSquareMatrix, type SquareMatrix } from "../../kernels/matrix/square_matrix.ts";
import type { ModelConfig } from "../llama/config.ts";
import { linearShape, STAGES } from "../llama/layer.ts";
import type { DeviceCalibrator } from "./device_calibrator.ts";

/** All Hessians of a model take at most so many bytes where they are kept: those of a billion weights do. */
const KEPT_BYTES = 8 * 2 ** 30;

export interface KeptSums {
  /** The text that they were summed on. */
  readonly windows: readonly Uint32Array[];
  /** By layer and stage. */
  readonly grams: Map<number, SquareMatrix>;
  readonly scope: BufferScope;
}

/** Whether a model's Hessians are few enough to be kept. */
export function canKeepSums(config: ModelConfig): boolean {
  const bytes = STAGES.map(({ linears: [kind] }) => 4 * linearShape(config, kind)[1] ** 2);
  return config.layers * bytes.reduce((sum, size) => sum + size, 0) <= KEPT_BYTES;
}

/** Room for the Hessians of a text. */
export function createKeptSums(gpu: Gpu, windows: KeptSums["windows"]): KeptSums {
  return { windows, grams: new Map(), scope: createBufferScope(gpu) };
}

export function isComplete({ grams }: KeptSums, config: ModelConfig): boolean {
  return grams.size === config.layers * STAGES.length;
}

/** A calibrator whose sums are kept beside being returned; the text comes to each stage once. */
export function keepSums(gpu: Gpu, calibrator: DeviceCalibrator, { grams, scope }: KeptSums): DeviceCalibrator {
  let layer = 0;
  return {
    ...calibrator,
    async pass(pair, stage, meanwhile) {
      await calibrator.pass(pair, stage, meanwhile);
      if (stage === STAGES.length - 1) layer++;
    },
    async sumStage(pair, stage, sumsScope, onShare) {
      const sums = await calibrator.sumStage(pair, stage, sumsScope, onShare);
      grams.set(layer * STAGES.length + stage, await copySquare(gpu, scope, sums.gram));
      return sums;
    },
  };
}

/** A calibrator that repeats what is kept, without a text. */
export function repeatSums(gpu: Gpu, { grams }: KeptSums): DeviceCalibrator {
  let layer = 0;
  return {
    correctTarget: false,
    isStill: true,
    pass(_pair, stage) {
      if (stage === STAGES.length - 1) layer++;
      return Promise.resolve();
    },
    async sumStage(_pair, stage, sumsScope, onShare) {
      onShare(1);
      return { gram: await copySquare(gpu, sumsScope, grams.get(layer * STAGES.length + stage)!) };
    },
    finish() {
      throw new TypeError("sums are repeated without a text, must be measured on one");
    },
  };
}

async function copySquare(gpu: Gpu, scope: BufferScope, { size, slabs }: SquareMatrix): Promise<SquareMatrix> {
  const copy = await createSquareMatrix(gpu, scope, "hessian", size);
  slabs.forEach(({ buffer }, i) => gpu.copy(buffer, 0, copy.slabs[i].buffer, 0, buffer.size));
  return copy;
}
