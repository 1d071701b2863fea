/**
 * Asks decodeLayers for the dispatches of layers that suit it, in a worker named `deno` or, without the global by which
 * Deno is told apart, `browser`.
 *
 * @module
 */
/// <reference lib="webworker" />

if (self.name === "browser") Reflect.deleteProperty(globalThis, "Deno");
const { openGpu } = await import("../../kernels/gpu.ts");
const { createTestLayers } = await import("./layer_helpers.ts");

self.onmessage = async ({ data: subgroupSize }) => {
  using gpu = await openGpu();
  // Deno has subgroups without listing them, which a browser would.
  Object.defineProperty(gpu, "subgroupSize", { value: subgroupSize });
  const sizes = { hidden: 64, intermediate: 64, heads: 4, keyValueHeads: 2, headSize: 16 };
  const made = await (await createTestLayers(gpu, { ...sizes, runs: [2] })).decode();
  self.postMessage(made ? "dispatches" : "refused");
};
