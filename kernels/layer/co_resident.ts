// Workgroups that run side by side: those that may wait for each other.
import type { Gpu, Kernel } from "../gpu/gpu.ts";

/**
 * Workgroups with which a kernel that includes layer/parts/relay.wgsl only counts how many of them run side by side; it
 * works with fewer.
 */
export const COUNTED_WORKGROUPS = 1024;

/** Control words at the start of a relay. */
export const CONTROL_WORDS = 256;
const RESIDENT_WORD = 2;

const residents = new WeakMap<Kernel, number>();
const distrusted = new WeakSet<Gpu>();

/**
 * Finds out how many workgroups of a kernel run side by side, by running some; once for each kernel.
 *
 * @param bindings of the kernel, with `relay` among them
 */
export async function countCoResident(
  gpu: Gpu,
  kernel: Kernel,
  relay: GPUBuffer,
  bindings: GPUBindGroup,
): Promise<number> {
  const known = residents.get(kernel);
  if (known !== undefined) return known;
  gpu.submit([{ kernel, bindings, workgroups: [COUNTED_WORKGROUPS, 1, 1] }]);
  const control = new Uint32Array(await gpu.read(relay, 4 * CONTROL_WORDS));
  gpu.write(relay, new Uint32Array(CONTROL_WORDS));
  const counted = Math.min(control[RESIDENT_WORD], COUNTED_WORKGROUPS - 1);
  residents.set(kernel, counted);
  return counted;
}

/** Whether workgroups on this device waited for each other in vain; no more are then made to. */
export function isDistrusted(gpu: Gpu): boolean {
  return distrusted.has(gpu);
}

/**
 * Looks whether workgroups waited for each other in vain, which is then not tried again on this device: whoever keeps
 * some of them away may do so at any time, and each wait costs as much as hundreds of tokens.
 */
export async function waitedInVain(gpu: Gpu, relay: GPUBuffer): Promise<boolean> {
  const [status] = new Uint32Array(await gpu.read(relay, 4));
  if (status !== 0) distrusted.add(gpu);
  return status !== 0;
}
