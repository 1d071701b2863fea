// Submitting work ahead of the device, but not all of it at once.
import type { Dispatch, Gpu } from "./gpu.ts";

/**
 * Runs steps that submit work. After each `ahead` of them the host waits for those before these: so the device always
 * has some left to do, and never more than twice as many. Where maps block (Deno's own WebGPU) a wait holds the thread
 * until all that was submitted is done, so there it has nothing left then.
 */
export async function runAhead(
  gpu: Gpu,
  count: number,
  ahead: number,
  step: (index: number) => Promise<void>,
): Promise<void> {
  let before = Promise.resolve();
  for (let i = 0; i < count; i++) {
    await step(i);
    if (i % ahead !== ahead - 1) continue;
    const these = gpu.wait();
    // Whoever waits meets the error.
    these.catch(() => {});
    await before;
    before = these;
  }
  await before;
}

/** Dispatches that are submitted together while others are made. */
const MADE_TOGETHER = 64;

/** Submits many dispatches in order, the first while the others are made, so that the device doesn't wait for all. */
export async function submitAsMade(gpu: Gpu, made: AsyncIterable<Dispatch>): Promise<void> {
  let together: Dispatch[] = [];
  for await (const dispatch of made) {
    if (together.push(dispatch) < MADE_TOGETHER) continue;
    gpu.submit(together);
    together = [];
  }
  if (together.length > 0) gpu.submit(together);
}
