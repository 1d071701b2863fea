/**
 * The shaders of this room, and the parts that all rooms share.
 *
 * @module
 */
import { createShaders } from "./shader.ts";
import exchangeSubgroup from "./parts/exchange_subgroup.wgsl" with { type: "text" };
import exchangeWorkgroup from "./parts/exchange_workgroup.wgsl" with { type: "text" };
import reduce from "./parts/reduce.wgsl" with { type: "text" };
import sumWorkgroup from "./parts/sum_workgroup.wgsl" with { type: "text" };
import readMemory from "./read_memory.wgsl" with { type: "text" };

/** Shaders of kernels/gpu. */
export const gpuShaders = createShaders({ read_memory: readMemory }, {
  exchange_subgroup: exchangeSubgroup,
  exchange_workgroup: exchangeWorkgroup,
  reduce,
  sum_workgroup: sumWorkgroup,
});
