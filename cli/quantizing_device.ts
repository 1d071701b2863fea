/**
 * Where a checkpoint is quantized: `--device` of `quantize`.
 *
 * @module
 */
import { describeAdapter } from "../kernels/gpu/adapter.ts";
import { type Gpu, openGpu } from "../kernels/gpu/gpu.ts";
import type { ModelConfig } from "../model/llama/config.ts";
import { whyNotOnDevice } from "../model/quantize/device_limits.ts";
import { type CpuPool, createCpuPool } from "../model/workers/cpu_pool.ts";
import type { Quantizer } from "../quant/quantize.ts";
import { type OptionValues, textOption, UsageError } from "./command.ts";

/** Values of `--device`. */
const DEVICES = ["auto", "cpu", "gpu"] as const;

/** Help of `--device`. */
export const QUANTIZING_DEVICE_HELP = "Where to quantize: gpu, cpu, or auto (default): the GPU where there is a real " +
  "one that does what is asked for (no outliers), else the CPU. With calibration the two differ in rounding.";

/** Reads `--device`. */
export function quantizingDeviceOption(options: OptionValues): typeof DEVICES[number] {
  const name = textOption(options, "device", "auto");
  const device = DEVICES.find((known) => known === name);
  if (!device) throw new UsageError(`--device is ${name}, must be one of ${DEVICES.join(", ")}`);
  return device;
}

/** Where a checkpoint is quantized. */
export interface QuantizingDevice extends Disposable {
  /** What quantizes. */
  readonly device: CpuPool | Gpu;
  /** Which of the two: what they make differs in rounding. */
  readonly kind: "cpu" | "gpu";
  /** Name for people. */
  readonly name: string;
  /** Why it isn't the GPU that is there. */
  readonly reason?: string;
}

/**
 * Opens the device.
 *
 * @throws {Error} when the GPU is asked for and there is none, or it doesn't do what is asked for
 */
export async function openQuantizingDevice(
  wanted: typeof DEVICES[number],
  config: ModelConfig,
  quantizer: Quantizer,
): Promise<QuantizingDevice> {
  if (wanted === "cpu" || (wanted === "auto" && (await describeAdapter())?.software !== false)) return openCpu();
  const gpu = await openGpu();
  const reason = whyNotOnDevice(gpu, config, quantizer);
  if (reason === undefined) {
    return {
      device: gpu,
      kind: "gpu",
      name: gpu.adapterName,
      [Symbol.dispose]: () => gpu.close(),
    };
  }
  gpu.close();
  if (wanted === "gpu") throw new Error(`${reason}, must be quantized with --device cpu`);
  return openCpu(reason);
}

function openCpu(reason?: string): QuantizingDevice {
  const pool = createCpuPool();
  return {
    device: pool,
    kind: "cpu",
    name: "the CPU",
    ...(reason && { reason }),
    [Symbol.dispose]: () => pool[Symbol.dispose](),
  };
}
