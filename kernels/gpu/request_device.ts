// Asks for a device with all that the kernels can use.
import { type Capabilities, capabilitiesOf } from "./capabilities.ts";

/** Features used where the device has them; all kernels but those that name one run without. */
const WANTED_FEATURES = ["shader-f16", "timestamp-query"];

/** Limits asked for at their full value, so that large tensors need not be split. */
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

export interface RequestedDevice {
  readonly adapter: GPUAdapter;
  readonly capabilities: Capabilities;
  readonly device: GPUDevice;
  /** Features that were granted: shader-f16, timestamp-query, subgroups and what multiplies by them. */
  readonly features: ReadonlySet<string>;
}

/** The adapter that kernels run on. */
export async function requestAdapter(webgpu: GPU | undefined): Promise<GPUAdapter | null | undefined> {
  return await webgpu?.requestAdapter({ powerPreference: "high-performance" });
}

/**
 * Asks the first adapter for a device.
 *
 * @param withoutSubgroups leaves out subgroups even where the device has them
 * @throws {Error} when there is no adapter, with the packages that bring a software one
 */
export async function requestDevice(webgpu: GPU, withoutSubgroups: boolean): Promise<RequestedDevice> {
  const adapter = await requestAdapter(webgpu);
  if (!adapter) {
    throw new Error(
      "no WebGPU adapter found, want a Vulkan, Metal or D3D12 driver (Debian: mesa-vulkan-drivers is a software one)",
    );
  }
  const requiredLimits: Record<string, number> = {};
  for (const name of WANTED_LIMITS) requiredLimits[name] = adapter.limits[name];
  const capabilities = capabilitiesOf(webgpu, adapter);
  const features = await usableFeatures(webgpu, adapter, capabilities, withoutSubgroups);
  const device = await adapter.requestDevice({ requiredFeatures: features as GPUFeatureName[], requiredLimits });
  return { adapter, capabilities, device, features: new Set(features) };
}

/** A feature that may be there without being listed is tried on a throw-away device. */
async function usableFeatures(
  webgpu: GPU,
  adapter: GPUAdapter,
  { unlistedFeatures, matrixFeature }: Capabilities,
  withoutSubgroups: boolean,
): Promise<string[]> {
  const ofSubgroups = withoutSubgroups ? [] : ["subgroups", ...(matrixFeature ? [matrixFeature] : [])];
  const wanted = [...WANTED_FEATURES, ...ofSubgroups];
  const usable: string[] = [];
  for (const name of wanted) {
    if (adapter.features.has(name as GPUFeatureName)) usable.push(name);
    else if (unlistedFeatures && await canRequest(webgpu, name)) usable.push(name);
  }
  return usable;
}

async function canRequest(webgpu: GPU, feature: string): Promise<boolean> {
  const adapter = await requestAdapter(webgpu);
  try {
    const device = await adapter!.requestDevice({ requiredFeatures: [feature as GPUFeatureName] });
    device.destroy();
    return true;
  } catch {
    return false;
  }
}
