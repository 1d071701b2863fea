// The WGSL files of this room by name, with those of the rooms below it.
export * from "../tokens/wgsl.ts";
export { default as decode_attention } from "./decode_attention.wgsl" with { type: "text" };
export { default as matrix_attention } from "./matrix_attention.wgsl" with { type: "text" };
export { default as prefill_attention } from "./prefill_attention.wgsl" with { type: "text" };
export { default as rope_cache } from "./rope_cache.wgsl" with { type: "text" };
export { default as attend } from "./parts/attend.wgsl" with { type: "text" };
export { default as attention_loads } from "./parts/attention_loads.wgsl" with { type: "text" };
export { default as cache_bytes } from "./parts/cache_bytes.wgsl" with { type: "text" };
export { default as cache_halves } from "./parts/cache_halves.wgsl" with { type: "text" };
export { default as cache_places } from "./parts/cache_places.wgsl" with { type: "text" };
export { default as cache_stores } from "./parts/cache_stores.wgsl" with { type: "text" };
export { default as queries_1 } from "./parts/queries_1.wgsl" with { type: "text" };
export { default as queries_4 } from "./parts/queries_4.wgsl" with { type: "text" };
