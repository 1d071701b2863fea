// What plans need to know of a device.
import { isSoftwareAdapter } from "./adapter.ts";
import type { Capabilities, SubgroupMatrixConfig } from "./capabilities.ts";

/** Facts of a device by which work is spread over it; made once, when it is opened. */
export interface DeviceProfile {
  /** Whether it runs on the CPU: its few threads are busy without more, and it has no loads in flight. */
  readonly software: boolean;
  /** Lanes of a subgroup where all subgroups have the same power-of-two size and can be used, else 0. */
  readonly subgroupSize: number;
  /** Whether its subgroups multiply matrices of f16, 16 x 16 each, with sums in f32. */
  readonly matrixUnits: boolean;
  /** Multiprocessors, each of which runs a workgroup or some. */
  readonly multiprocessors: number;
  /** Most bytes of workgroup memory. */
  readonly workgroupBytes: number;
  /** Most threads of a workgroup. */
  readonly workgroupThreads: number;
}

/** Of an H100 and H200, and of GPUs that aren't known, as WebGPU doesn't tell: too few workgroups leave a device idle. */
export const MULTIPROCESSORS = 132;

/** The profile of a device. */
export function profileOf(
  { info }: Pick<GPUAdapter, "info">,
  { limits }: Pick<GPUDevice, "limits">,
  features: ReadonlySet<string>,
  { matrixFeature, subgroupMatrices }: Pick<Capabilities, "matrixFeature" | "subgroupMatrices">,
): DeviceProfile {
  const subgroupSize = features.has("subgroups") ? fixedSubgroupSize(info) : 0;
  const isGranted = matrixFeature !== undefined && features.has(matrixFeature) && features.has("shader-f16");
  const fits = ({ componentType, resultComponentType, M, N, K }: SubgroupMatrixConfig) =>
    componentType === "f16" && resultComponentType === "f32" && M === 16 && N === 16 && K === 16;
  return {
    software: isSoftwareAdapter(info),
    subgroupSize,
    matrixUnits: isGranted && subgroupSize === 32 && subgroupMatrices.some(fits),
    multiprocessors: MULTIPROCESSORS,
    workgroupBytes: limits.maxComputeWorkgroupStorageSize,
    workgroupThreads: limits.maxComputeInvocationsPerWorkgroup,
  };
}

function fixedSubgroupSize({ subgroupMinSize, subgroupMaxSize }: GPUAdapterInfo): number {
  const isPowerOfTwo = (subgroupMinSize & (subgroupMinSize - 1)) === 0;
  return subgroupMinSize === subgroupMaxSize && isPowerOfTwo && subgroupMinSize >= 4 ? subgroupMinSize : 0;
}

/** About a workgroup for each multiprocessor: the power of two at or below, which heads and splits divide. */
export function evenWorkgroups({ multiprocessors }: DeviceProfile): number {
  return 2 ** Math.floor(Math.log2(multiprocessors));
}
