// What GPU there is, without opening a device.

import { type Capabilities, capabilitiesOf } from "./capabilities.ts";
import { requestAdapter } from "./request_device.ts";

export interface AdapterDescription {
  readonly name: string;
  /** Whether it runs on the CPU (llvmpipe, SwiftShader): right results, meaningless timings. */
  readonly software: boolean;
  readonly capabilities: Capabilities;
  readonly features: readonly string[];
  readonly limits: {
    readonly maxBufferBytes: number;
    readonly maxStorageBindingBytes: number;
    readonly maxStorageBuffers: number;
    readonly maxWorkgroupBytes: number;
  };
}

/** An adapter's name: as the driver gives it, or what a browser, which hides that, says of its kind. */
export function adapterName({ description, device, vendor, architecture }: GPUAdapterInfo): string {
  return description || device || `${vendor} ${architecture}`.trim() || "unnamed adapter";
}

/** Whether an adapter runs on the CPU, so that its timings say nothing about GPUs. */
export function isSoftwareAdapter(info: GPUAdapterInfo): boolean {
  return info.isFallbackAdapter || /llvmpipe|swiftshader|lavapipe|basic render|software/i.test(adapterName(info));
}

/** Whether plans were measured on GPUs of this name; what they count on is then true of it (device_profile.ts). */
export function isPlannedFor(name: string): boolean {
  return /\bH[12]00\b(?! PCIe)/.test(name);
}

/** Describes the adapter that kernels would run on; undefined where there is none. */
export async function describeAdapter(
  webgpu: GPU | undefined = navigator.gpu,
): Promise<AdapterDescription | undefined> {
  const adapter = await requestAdapter(webgpu);
  if (!adapter) return undefined;
  const { info, limits } = adapter;
  return {
    name: adapterName(info),
    software: isSoftwareAdapter(info),
    capabilities: capabilitiesOf(webgpu!, adapter),
    features: [...adapter.features].sort(),
    limits: {
      maxBufferBytes: limits.maxBufferSize,
      maxStorageBindingBytes: limits.maxStorageBufferBindingSize,
      maxStorageBuffers: limits.maxStorageBuffersPerShaderStage,
      maxWorkgroupBytes: limits.maxComputeWorkgroupStorageSize,
    },
  };
}
