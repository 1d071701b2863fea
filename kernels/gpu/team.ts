/**
 * Teams: lanes that exchange values, a subgroup where the device has them.
 *
 * @module
 */
import type { Gpu } from "./gpu.ts";
import subgroupCode from "./parts/exchange_subgroup.wgsl" with { type: "text" };
import workgroupCode from "./parts/exchange_workgroup.wgsl" with { type: "text" };

/** A kind of team, with the shader code by which its lanes exchange values. */
export interface Team {
  /** Lanes of a team, a power of two. */
  readonly lanes: number;
  /** Defines `exchange(value, thread, distance)`. */
  readonly exchangeCode: string;
  /** Workgroup memory that it takes for each lane. */
  readonly exchangeBytes: number;
}

/**
 * Subgroups where they have one known size of at most 64 lanes, else 32 lanes that exchange through workgroup memory.
 *
 * @param leastLanes lanes that a team must have
 */
export function chooseTeam(gpu: Gpu, leastLanes = 4): Team {
  const size = gpu.subgroupSize;
  return size >= leastLanes && size <= 64
    ? { lanes: size, exchangeCode: subgroupCode, exchangeBytes: 0 }
    : { lanes: 32, exchangeCode: workgroupCode, exchangeBytes: 4 };
}
