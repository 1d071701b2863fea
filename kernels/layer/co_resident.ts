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

/** Whether a workgroup that takes values from a relay gave up waiting for one. */
export async function hasGivenUp(gpu: Gpu, relay: GPUBuffer): Promise<boolean> {
  const [status] = new Uint32Array(await gpu.read(relay, 4));
  return status !== 0;
}
