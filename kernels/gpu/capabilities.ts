// What an implementation of WebGPU can do beyond what all do: Deno's own (wgpu with its compiler naga), Dawn in Deno,
// or a browser's.

/** Sizes and types of a product of two small matrices by a subgroup; the proposal's `GPUSubgroupMatrixConfig`. */
export interface SubgroupMatrixConfig {
  /** Type of the factors' elements, such as `f16`. */
  readonly componentType: string;
  /** Type of the sums. */
  readonly resultComponentType: string;
  /** Rows of the left factor and of the result. */
  readonly M: number;
  /** Columns of the right factor and of the result. */
  readonly N: number;
  /** Columns of the left factor, rows of the right one. */
  readonly K: number;
}

/** What an implementation can do on an adapter. */
export interface Capabilities {
  /** Whose it is. */
  readonly implementation: "Deno" | "Dawn" | "browser";
  /** Whether its compiler wants `enable` lines for subgroups and the like; naga, Deno's, refuses them. */
  readonly enableLines: boolean;
  /** Whether barriers must stand where its compiler sees that all threads of a workgroup come by. */
  readonly checksUniformity: boolean;
  /** Whether it has features that its adapter doesn't list: Deno 2.9 has subgroups. */
  readonly unlistedFeatures: boolean;
  /** Whether `mapAsync` blocks until the work is done, so that a buffer can be read without awaiting it. */
  readonly blockingMaps: boolean;
  /** The feature by which subgroups multiply matrices, by the draft's name or Dawn's older one. */
  readonly matrixFeature?: "subgroup-matrix" | "chromium-experimental-subgroup-matrix";
  /** The products that subgroups do; none without that feature. */
  readonly subgroupMatrices: readonly SubgroupMatrixConfig[];
}

const MATRIX_FEATURES = ["subgroup-matrix", "chromium-experimental-subgroup-matrix"] as const;

/** The capabilities of an adapter; `webgpu` is what it was asked from. */
export function capabilitiesOf(webgpu: GPU, { features, info }: GPUAdapter): Capabilities {
  const isInDeno = "Deno" in globalThis;
  const isDenos = isInDeno && webgpu instanceof GPU;
  const matrixFeature = MATRIX_FEATURES.find((name) => features.has(name as GPUFeatureName));
  const { subgroupMatrixConfigs = [] } = info as { subgroupMatrixConfigs?: Iterable<SubgroupMatrixConfig> };
  return {
    implementation: isDenos ? "Deno" : isInDeno ? "Dawn" : "browser",
    enableLines: !isDenos,
    checksUniformity: !isDenos,
    unlistedFeatures: isDenos,
    blockingMaps: isDenos,
    ...(matrixFeature && { matrixFeature }),
    subgroupMatrices: Array.from(matrixFeature ? subgroupMatrixConfigs : [], (config) => ({
      componentType: config.componentType,
      resultComponentType: config.resultComponentType,
      M: config.M,
      N: config.N,
      K: config.K,
    })),
  };
}
