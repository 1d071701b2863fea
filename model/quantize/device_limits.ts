/**
 * What quantizing on the device leaves to the CPU.
 *
 * @module
 */
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { PANEL_ROWS } from "../../kernels/matrix/square_matrix.ts";
import type { Quantizer } from "../../quant/quantize.ts";
import { measuresInput } from "../../quant/quantizer.ts";
import type { ModelConfig } from "../llama/config.ts";
import { linearShape, STAGES } from "../llama/layer.ts";

/**
 * Why the device cannot quantize a matrix of a model; undefined where it can.
 *
 * @param config the model, of which every matrix is looked at
 */
export function whyNotOnDevice(gpu: Gpu, config: ModelConfig, quantizer: Quantizer): string | undefined {
  if (quantizer.kind !== "twobit") return `the device doesn't quantize to ${quantizer.kind}`;
  const { settings, feedback, correctTarget } = quantizer;
  if (settings.outliers.share !== 0) return "the device doesn't pick outliers";
  // Refined groups are picked by the weights of channels, which only matrices without feedback have there.
  const picks = quantizer.weighsChannels ? "error_hessian" : "error";
  if (settings.pick !== picks) return `the device doesn't pick refined groups by ${settings.pick}`;
  if (feedback?.order === "channels") return "the device doesn't order channels one by one";
  const limit = gpu.device.limits.maxStorageBufferBindingSize;
  for (
    const { kind, joinsResidual } of STAGES.flatMap(({ linears, joinsResidual }) =>
      linears.map((kind) => ({ kind, joinsResidual }))
    )
  ) {
    const [rows, channels] = linearShape(config, kind);
    if (channels % 16 !== 0 || rows % 4 !== 0) {
      return `${kind} is ${rows} x ${channels}, the device wants rows in fours and channels in sixteens`;
    }
    // Hessians lie in slabs; the drift of targets is one matrix, where it isn't part of a correlation of [channels, rows].
    const drifts = correctTarget && !joinsResidual;
    const largest = 4 * channels * Math.max(rows, measuresInput(quantizer) ? PANEL_ROWS : 0, drifts ? channels : 0);
    if (largest > limit) return `${kind} needs a buffer of ${largest} bytes, the device binds ${limit}`;
  }
  return undefined;
}
