// Quantizing on a GPU: the host holds one layer and reads the next, the device holds the matrices of one stage, its
// sums and the calibration text.
import { allOrNone, type BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import type { ModelConfig } from "../llama/config.ts";
import { tuneModel } from "../tune/tune_model.ts";
import { checkTuning } from "../tune/tuning_limits.ts";
import { createDeviceCalibrator } from "./device_calibrator.ts";
import { startLayer } from "./gpu_layer.ts";
import { canKeepSums, createKeptSums, isComplete, keepSums, type KeptSums, repeatSums } from "./kept_sums.ts";
import { createLayerReader } from "./layer_reader.ts";
import type { QuantizePool } from "./quantize_tasks.ts";
import type { Calibration, QuantizingDevice } from "./quantizing_device.ts";
import { measureStageLosses } from "./stage_losses.ts";

/**
 * A GPU as a device, for what {@linkcode whyNotOnDevice} has nothing against.
 *
 * @param pool workers for quantizers other than the method, which are needed for nothing else
 * @returns a device that keeps the Hessians of an unquantized model until the GPU is closed, where a text
 * {@linkcode Calibration keepsInputs} and they are few enough
 */
export function gpuDevice(gpu: Gpu, pool?: QuantizePool): QuantizingDevice {
  let kept: KeptSums | undefined;
  const startText = async (scope: BufferScope, config: ModelConfig, calibration: Calibration) => {
    const { windows, keepsInputs } = calibration;
    if (!keepsInputs || !canKeepSums(config)) return await createDeviceCalibrator(gpu, scope, config, calibration);
    if (kept?.windows === windows && isComplete(kept, config)) return repeatSums(gpu, kept);
    kept?.scope[Symbol.dispose]();
    kept = createKeptSums(gpu, windows);
    return keepSums(gpu, await createDeviceCalibrator(gpu, scope, config, calibration), kept);
  };
  return {
    openLayers: createLayerReader,
    start: (config, calibration) =>
      allOrNone(gpu, async (scope) => {
        if (calibration?.tuning) await checkTuning(gpu, config, calibration.windows, calibration.tuning);
        const text = calibration && await startText(scope, config, calibration);
        const keepsInputs = calibration?.keepsInputs === true;
        return {
          isCalibrated: text !== undefined,
          startLayer: (index, original) => startLayer({ gpu, pool, config, text, index, original, keepsInputs }),
          // deno-lint-ignore require-await -- a missing text rejects the promise
          async tune(source, settings, watch) {
            if (!text) throw new TypeError("there is no calibration text, must be one to tune on");
            return tuneModel(gpu, source, text.finish(), settings, watch);
          },
          [Symbol.dispose]: () => scope[Symbol.dispose](),
        };
      }),
    async measureLosses(checkpoint, plan) {
      using source = await createLayerReader(checkpoint);
      return await measureStageLosses(gpu, checkpoint, source, plan);
    },
  };
}
