/**
 * The shaders of this room.
 *
 * @module
 */
import { gpuShaders } from "../gpu/shaders.ts";
import { createShaders } from "../gpu/shader.ts";
import addBias from "./add_bias.wgsl" with { type: "text" };
import advance from "./advance.wgsl" with { type: "text" };
import argmax from "./argmax.wgsl" with { type: "text" };
import embedTokens from "./embed_tokens.wgsl" with { type: "text" };
import logLikelihood from "./log_likelihood.wgsl" with { type: "text" };
import rmsNorm from "./rms_norm.wgsl" with { type: "text" };
import sample from "./sample.wgsl" with { type: "text" };
import siluProduct from "./silu_product.wgsl" with { type: "text" };
import pickBest from "./parts/pick_best.wgsl" with { type: "text" };
import prefillRange from "./parts/prefill_range.wgsl" with { type: "text" };

/** Shaders of kernels/tokens. */
export const tokenShaders = createShaders({
  add_bias: addBias,
  advance,
  argmax,
  embed_tokens: embedTokens,
  log_likelihood: logLikelihood,
  rms_norm: rmsNorm,
  sample,
  silu_product: siluProduct,
}, {
  ...gpuShaders.parts,
  pick_best: pickBest,
  prefill_range: prefillRange,
});
