// The WGSL files of this room by name, with those of the rooms below it.
export * from "../product/wgsl.ts";
export { default as adam } from "./adam.wgsl" with { type: "text" };
export { default as add_partials } from "./add_partials.wgsl" with { type: "text" };
export { default as attention_key_backward } from "./attention_key_backward.wgsl" with { type: "text" };
export { default as attention_query_backward } from "./attention_query_backward.wgsl" with { type: "text" };
export { default as divergence } from "./divergence.wgsl" with { type: "text" };
export { default as rms_norm_backward } from "./rms_norm_backward.wgsl" with { type: "text" };
export { default as rope_backward } from "./rope_backward.wgsl" with { type: "text" };
export { default as scale_tiles } from "./scale_tiles.wgsl" with { type: "text" };
export { default as silu_backward } from "./silu_backward.wgsl" with { type: "text" };
export { default as tile_gradient } from "./tile_gradient.wgsl" with { type: "text" };
export { default as transpose_halves } from "./transpose_halves.wgsl" with { type: "text" };
export { default as attention_tiles } from "./parts/attention_tiles.wgsl" with { type: "text" };
