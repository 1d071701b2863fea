/**
 * How many steps the device takes before the host looks at what was chosen.
 *
 * @module
 */

/** A run of steps should take about so long: text flows, and waiting for the device costs little. */
const RUN_MS = 60;
const MAX_STEPS = 64;

/** Steps of the next run, when a run of `steps` took `tookMs`; a first run has one. */
export function paceSteps(steps: number, tookMs: number): number {
  if (tookMs < RUN_MS / 2) return Math.min(MAX_STEPS, 2 * steps);
  return tookMs > 2 * RUN_MS ? Math.max(1, steps >> 1) : steps;
}
