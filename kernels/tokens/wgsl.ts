// The WGSL files of this room by name, with those of the rooms below it.
export * from "../gpu/wgsl.ts";
export { default as add_bias } from "./add_bias.wgsl" with { type: "text" };
export { default as advance } from "./advance.wgsl" with { type: "text" };
export { default as argmax } from "./argmax.wgsl" with { type: "text" };
export { default as embed_tokens } from "./embed_tokens.wgsl" with { type: "text" };
export { default as log_likelihood } from "./log_likelihood.wgsl" with { type: "text" };
export { default as rms_norm } from "./rms_norm.wgsl" with { type: "text" };
export { default as sample_histogram } from "./sample_histogram.wgsl" with { type: "text" };
export { default as sample_threshold } from "./sample_threshold.wgsl" with { type: "text" };
export { default as silu_product } from "./silu_product.wgsl" with { type: "text" };
export { default as pick_best } from "./parts/pick_best.wgsl" with { type: "text" };
export { default as sampling } from "./parts/sampling.wgsl" with { type: "text" };
export { default as score_drawn } from "./parts/score_drawn.wgsl" with { type: "text" };
export { default as score_logit } from "./parts/score_logit.wgsl" with { type: "text" };
export { default as silu } from "./parts/silu.wgsl" with { type: "text" };
export { default as token_range } from "./parts/token_range.wgsl" with { type: "text" };
