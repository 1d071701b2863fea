// The WGSL files of this room by name.
export { default as read_memory } from "./read_memory.wgsl" with { type: "text" };
export { default as exchange_subgroup } from "./parts/exchange_subgroup.wgsl" with { type: "text" };
export { default as exchange_workgroup } from "./parts/exchange_workgroup.wgsl" with { type: "text" };
export { default as finite_bits } from "./parts/finite_bits.wgsl" with { type: "text" };
export { default as float_fours } from "./parts/float_fours.wgsl" with { type: "text" };
export { default as half_fours } from "./parts/half_fours.wgsl" with { type: "text" };
export { default as halves } from "./parts/halves.wgsl" with { type: "text" };
export { default as matrices } from "./parts/matrices.wgsl" with { type: "text" };
export { default as matrix_blocks } from "./parts/matrix_blocks.wgsl" with { type: "text" };
export { default as matrix_product } from "./parts/matrix_product.wgsl" with { type: "text" };
export { default as reduce } from "./parts/reduce.wgsl" with { type: "text" };
export { default as sum_workgroup } from "./parts/sum_workgroup.wgsl" with { type: "text" };
