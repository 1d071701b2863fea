/**
 * Asks for a device with all that the kernels can use.
 *
 * @module
 */
import { IS_DENO } from "./dialect.ts";

/** Features used where the device has them; all kernels but those that name one run without. */
const WANTED_FEATURES = ["shader-f16", "timestamp-query", "subgroups"];

/** Limits asked for at their full value, so that large tensors need not be split. */
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

/** A device with what was granted. */
export interface RequestedDevice {
  /** The adapter, which says what it is. */
  readonly adapter: GPUAdapter;
  /** Its device. */
  readonly device: GPUDevice;
  /** Features that were granted: shader-f16, timestamp-query, subgroups. */
  readonly features: ReadonlySet<string>;
}

/**
 * Asks the first adapter for a device.
 *
 * @param withoutSubgroups leaves out subgroups even where the device has them
 * @throws {Error} when there is no adapter, with the packages that bring a software one
 */
export async function requestDevice(withoutSubgroups: boolean): Promise<RequestedDevice> {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new Error(
      "no WebGPU adapter found, want a Vulkan, Metal or D3D12 driver (Debian: mesa-vulkan-drivers is a software one)",
    );
  }
  const requiredLimits: Record<string, number> = {};
  for (const name of WANTED_LIMITS) requiredLimits[name] = adapter.limits[name];
  const features = await usableFeatures(adapter, withoutSubgroups);
  const device = await adapter.requestDevice({ requiredFeatures: features as GPUFeatureName[], requiredLimits });
  return { adapter, device, features: new Set(features) };
}

/** Deno 2.9 has subgroups without listing them, so there a feature not listed is tried on a throw-away device. */
async function usableFeatures(adapter: GPUAdapter, withoutSubgroups: boolean): Promise<string[]> {
  const wanted = WANTED_FEATURES.filter((name) => !(name === "subgroups" && withoutSubgroups));
  const usable: string[] = [];
  for (const name of wanted) {
    if (adapter.features.has(name as GPUFeatureName)) usable.push(name);
    else if (IS_DENO && await canRequest(name)) usable.push(name);
  }
  return usable;
}

async function canRequest(feature: string): Promise<boolean> {
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  try {
    const device = await adapter!.requestDevice({ requiredFeatures: [feature as GPUFeatureName] });
    device.destroy();
    return true;
  } catch {
    return false;
  }
}
