// The WGSL files of this room by name, with those of the rooms below it.
export * from "../gpu/wgsl.ts";
export { default as add_bias } from "./add_bias.wgsl" with { type: "text" };
export { default as advance } from "./advance.wgsl" with { type: "text" };
export { default as argmax } from "./argmax.wgsl" with { type: "text" };
export { default as embed_tokens } from "./embed_tokens.wgsl" with { type: "text" };
export { default as log_likelihood } from "./log_likelihood.wgsl" with { type: "text" };
export { default as rms_norm } from "./rms_norm.wgsl" with { type: "text" };
export { default as sample } from "./sample.wgsl" with { type: "text" };
export { default as silu_product } from "./silu_product.wgsl" with { type: "text" };
export { default as pick_best } from "./parts/pick_best.wgsl" with { type: "text" };
export { default as token_range } from "./parts/token_range.wgsl" with { type: "text" };
