// Asks decodeLayers for the dispatches of layers that suit it and posts what came of it. The worker's name says where and
// with which size of subgroups: `deno 8`, or `browser 8` without the global by which Deno is told apart. The name, since a
// message may come before modules are loaded and is then lost.
/// <reference lib="webworker" />

const [where, subgroupSize] = self.name.split(" ");
if (where === "browser") Reflect.deleteProperty(globalThis, "Deno");
const { openGpu } = await import("../../kernels/gpu/gpu.ts");
const { createTestLayers } = await import("./layer_helpers.ts");

using gpu = await openGpu();
// Deno has subgroups without listing them, which a browser would.
Object.assign(gpu, { profile: { ...gpu.profile, subgroupSize: Number(subgroupSize) } });
const sizes = { hidden: 64, intermediate: 64, heads: 4, keyValueHeads: 2, headSize: 16 };
const made = await (await createTestLayers(gpu, { ...sizes, runs: [2] })).decode();
self.postMessage(typeof made === "object" ? "dispatches" : "refused");
