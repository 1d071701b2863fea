// Where a checkpoint is quantized: on the CPU or on the GPU.
import { describeAdapter } from "../../kernels/gpu/adapter.ts";
import { type Gpu, openGpu } from "../../kernels/gpu/gpu.ts";
import type { Quantizer } from "../../quant/quantize.ts";
import type { ModelConfig } from "../llama/config.ts";
import { cpuDevice } from "../quantize/cpu_device.ts";
import { whyNotOnDevice } from "../quantize/device_limits.ts";
import { gpuDevice } from "../quantize/gpu_device.ts";
import type { QuantizingDevice } from "../quantize/quantizing_device.ts";
import { createCpuPool } from "./cpu_pool.ts";

/** Names of places: `auto` is the GPU where there is a real one that does what is asked for, else the CPU. */
export const QUANTIZING_PLACES: readonly PlaceName[] = ["auto", "cpu", "gpu"];

/** Name of one. */
export type PlaceName = "auto" | "cpu" | "gpu";

/** Where a checkpoint is quantized; dispose it to end the workers or to close the GPU. */
export interface QuantizingPlace extends Disposable {
  /**
   * What quantizes.
   *
   * @ignore
   */
  readonly device: QuantizingDevice;
  /** Which of the two: what they make differs in rounding. */
  readonly kind: "cpu" | "gpu";
  /** Whether that is a GPU and not a software adapter. */
  readonly isRealGpu: boolean;
  /**
   * The GPU, where that is what quantizes.
   *
   * @ignore
   */
  readonly gpu?: Gpu;
  /** Name for people. */
  readonly name: string;
  /** Why it isn't the GPU that is there. */
  readonly reason?: string;
  /** The most of the GPU's memory held so far. */
  readonly peakBytes?: number;
}

/**
 * Opens the GPU where a model is to be quantized there; or says why not, where there is one that could.
 *
 * @throws {Error} when the GPU is asked for and there is none, or it doesn't do what is asked for
 */
export async function openQuantizingGpu(
  wanted: PlaceName,
  config: ModelConfig,
  quantizer: Quantizer,
): Promise<{ readonly gpu?: Gpu; readonly reason?: string }> {
  if (wanted === "cpu" || (wanted === "auto" && (await describeAdapter())?.software !== false)) return {};
  const gpu = await openGpu();
  const reason = whyNotOnDevice(gpu, config, quantizer);
  if (reason === undefined) return { gpu };
  gpu.close();
  if (wanted === "gpu") throw new Error(`${reason}, must be quantized with --device cpu`);
  return { reason };
}

/** Opens a place. @throws {Error} when the GPU is asked for and there is none, or it doesn't do what is asked for */
export async function openQuantizingPlace(
  wanted: PlaceName,
  config: ModelConfig,
  quantizer: Quantizer,
): Promise<QuantizingPlace> {
  const { gpu, reason } = await openQuantizingGpu(wanted, config, quantizer);
  if (gpu) {
    return {
      device: gpuDevice(gpu),
      kind: "gpu",
      gpu,
      isRealGpu: !gpu.isSoftware,
      name: gpu.adapterName,
      get peakBytes() {
        return gpu.peakBytes;
      },
      [Symbol.dispose]: () => gpu.close(),
    };
  }
  return openCpu(reason);
}

function openCpu(reason?: string): QuantizingPlace {
  const pool = createCpuPool();
  return {
    device: cpuDevice(pool),
    kind: "cpu",
    isRealGpu: false,
    name: "the CPU",
    ...(reason && { reason }),
    [Symbol.dispose]: () => pool[Symbol.dispose](),
  };
}
