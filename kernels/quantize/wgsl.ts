/**
 * The WGSL files of this room by name.
 *
 * @module
 */
export { default as diagonal } from "./diagonal.wgsl" with { type: "text" };
export { default as factor_block } from "./factor_block.wgsl" with { type: "text" };
export { default as feedback_block } from "./feedback_block.wgsl" with { type: "text" };
export { default as mirror_factor } from "./mirror_factor.wgsl" with { type: "text" };
export { default as order_groups } from "./order_groups.wgsl" with { type: "text" };
export { default as order_hessian } from "./order_hessian.wgsl" with { type: "text" };
export { default as outer_update } from "./outer_update.wgsl" with { type: "text" };
export { default as pack_meta } from "./pack_meta.wgsl" with { type: "text" };
export { default as pick_refined } from "./pick_refined.wgsl" with { type: "text" };
export { default as probe_groups } from "./probe_groups.wgsl" with { type: "text" };
export { default as search_groups } from "./search_groups.wgsl" with { type: "text" };
export { default as solve_block } from "./solve_block.wgsl" with { type: "text" };
export { default as turn_weights } from "./turn_weights.wgsl" with { type: "text" };
export { default as free_rounding } from "./parts/free_rounding.wgsl" with { type: "text" };
export { default as group_grid } from "./parts/group_grid.wgsl" with { type: "text" };
export { default as pulled_rounding } from "./parts/pulled_rounding.wgsl" with { type: "text" };
export { default as turned_values } from "./parts/turned_values.wgsl" with { type: "text" };
export { default as write_group } from "./parts/write_group.wgsl" with { type: "text" };
