/**
 * The shaders of this room.
 *
 * @module
 */
import { createShaders } from "../gpu/shader.ts";
import diagonal from "./diagonal.wgsl" with { type: "text" };
import factorBlock from "./factor_block.wgsl" with { type: "text" };
import feedbackBlock from "./feedback_block.wgsl" with { type: "text" };
import mirrorFactor from "./mirror_factor.wgsl" with { type: "text" };
import orderGroups from "./order_groups.wgsl" with { type: "text" };
import orderHessian from "./order_hessian.wgsl" with { type: "text" };
import outerUpdate from "./outer_update.wgsl" with { type: "text" };
import packMeta from "./pack_meta.wgsl" with { type: "text" };
import pickRefined from "./pick_refined.wgsl" with { type: "text" };
import probeGroups from "./probe_groups.wgsl" with { type: "text" };
import searchGroups from "./search_groups.wgsl" with { type: "text" };
import solveBlock from "./solve_block.wgsl" with { type: "text" };
import turnWeights from "./turn_weights.wgsl" with { type: "text" };
import freeSearch from "./parts/free_search.wgsl" with { type: "text" };
import groupGrid from "./parts/group_grid.wgsl" with { type: "text" };
import pulledSearch from "./parts/pulled_search.wgsl" with { type: "text" };
import turnedValues from "./parts/turned_values.wgsl" with { type: "text" };
import writeGroup from "./parts/write_group.wgsl" with { type: "text" };

/** Shaders of kernels/quantize. */
export const quantizeShaders = createShaders({
  diagonal,
  factor_block: factorBlock,
  feedback_block: feedbackBlock,
  mirror_factor: mirrorFactor,
  order_groups: orderGroups,
  order_hessian: orderHessian,
  outer_update: outerUpdate,
  pack_meta: packMeta,
  pick_refined: pickRefined,
  probe_groups: probeGroups,
  search_groups: searchGroups,
  solve_block: solveBlock,
  turn_weights: turnWeights,
}, {
  free_search: freeSearch,
  group_grid: groupGrid,
  pulled_search: pulledSearch,
  turned_values: turnedValues,
  write_group: writeGroup,
});
