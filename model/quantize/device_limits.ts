// What quantizing on the device leaves to the CPU.
import { whyNotAttended } from "../../kernels/attention/key_value_cache.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { PANEL_ROWS } from "../../kernels/matrix/square_matrix.ts";
import type { Quantizer } from "../../quant/quantize.ts";
import { measuresInput } from "../../quant/quantizer.ts";
import { picksByWeights } from "../../quant/refine_pick.ts";
import type { TwobitQuantizer } from "../../quant/twobit.ts";
import type { ModelConfig } from "../llama/config.ts";
import { linearShape, STAGES } from "../llama/layer.ts";

/**
 * Why the device cannot quantize a matrix of a model; undefined where it can.
 *
 * @param config the model, of which every matrix is looked at
 */
export function whyNotOnDevice(gpu: Gpu, config: ModelConfig, quantizer: Quantizer): string | undefined {
  const { feedback, correctTarget } = quantizer;
  const unpicked = quantizer.kind === "twobit" && whyNotPicked(quantizer);
  if (unpicked) return unpicked;
  const unattended = feedback && whyNotAttended(config);
  if (unattended) return `${unattended} on the device`;
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

/** Why the device cannot pick refined groups as a quantizer asks for. */
function whyNotPicked({ settings: { pick }, feedback, weighsChannels, correctTarget }: TwobitQuantizer) {
  if (feedback?.order === "channels") return "the device keeps groups of channels together";
  // By errors, refined groups are picked with the weights of channels, which only matrices without feedback have there.
  const byErrors = weighsChannels ? "error_hessian" : "error";
  if (pick === byErrors || (picksByWeights(pick) && !correctTarget)) return undefined;
  return `the device doesn't pick refined groups by ${pick}${picksByWeights(pick) ? " of corrected targets" : ""}`;
}
