/**
 * The shaders of this room.
 *
 * @module
 */
import { tokenShaders } from "../tokens/shaders.ts";
import { createShaders } from "../gpu/shader.ts";
import decodeAttention from "./decode_attention.wgsl" with { type: "text" };
import prefillAttention from "./prefill_attention.wgsl" with { type: "text" };
import ropeCache from "./rope_cache.wgsl" with { type: "text" };
import attend from "./parts/attend.wgsl" with { type: "text" };
import attentionLoads from "./parts/attention_loads.wgsl" with { type: "text" };
import queries1 from "./parts/queries_1.wgsl" with { type: "text" };
import queries4 from "./parts/queries_4.wgsl" with { type: "text" };

/** Shaders of kernels/attention. */
export const attentionShaders = createShaders({
  decode_attention: decodeAttention,
  prefill_attention: prefillAttention,
  rope_cache: ropeCache,
}, {
  ...tokenShaders.parts,
  attend,
  attention_loads: attentionLoads,
  queries_1: queries1,
  queries_4: queries4,
});
