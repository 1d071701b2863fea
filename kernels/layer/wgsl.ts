// The WGSL files of this room by name, with those of the rooms below it.
export * from "../product/wgsl.ts";
export * from "../attention/wgsl.ts";
export { default as decode_layer } from "./decode_layer.wgsl" with { type: "text" };
export { default as half_steps } from "./parts/half_steps.wgsl" with { type: "text" };
export { default as packed_steps } from "./parts/packed_steps.wgsl" with { type: "text" };
export { default as relay } from "./parts/relay.wgsl" with { type: "text" };
export { default as relay_attention } from "./parts/relay_attention.wgsl" with { type: "text" };
export { default as relay_groups } from "./parts/relay_groups.wgsl" with { type: "text" };
export { default as relay_input } from "./parts/relay_input.wgsl" with { type: "text" };
