// Teams: lanes that exchange values, a subgroup where the device has them.
import type { DeviceProfile } from "./device_profile.ts";

export interface Team {
  /** Lanes of a team, a power of two. */
  readonly lanes: number;
  /** Part of a shader that is its exchange. */
  readonly exchange: "exchange_subgroup" | "exchange_workgroup";
  /** Workgroup memory that it takes for each lane. */
  readonly exchangeBytes: number;
}

/**
 * Subgroups where they have one known size of at most 64 lanes, else 32 lanes that exchange through workgroup memory.
 *
 * @param leastLanes lanes that a team must have
 */
export function chooseTeam({ subgroupSize: size }: DeviceProfile, leastLanes = 4): Team {
  return size >= leastLanes && size <= 64
    ? { lanes: size, exchange: "exchange_subgroup", exchangeBytes: 0 }
    : { lanes: 32, exchange: "exchange_workgroup", exchangeBytes: 4 };
}
