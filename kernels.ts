/**
 * Products of packed matrices on the GPU. Launchers compile what they need and return dispatches, which run when they are
 * submitted, as often as they are.
 *
 * ```ts
 * import { createTokenRange, fusedGemm, fusedGemv, openGpu, uploadPackedMatrix } from "@twobit/twobit/kernels";
 * import { quantizeTwobit, SETTINGS } from "@twobit/twobit/quant";
 * import { assert } from "@std/assert";
 *
 * const [rows, channels, tokens] = [32, 256, 3];
 * const weights = Float32Array.from({ length: rows * channels }, (_, i) => Math.sin(i));
 * using gpu = await openGpu();
 * const matrix = await uploadPackedMatrix(gpu, quantizeTwobit(weights, rows, channels, SETTINGS));
 *
 * // y = W x
 * const x = await gpu.uploadStorage("x", new Float32Array(channels).fill(1));
 * const y = await gpu.createStorage("y", rows * 4);
 * gpu.submit(await fusedGemv(gpu, matrix, { kind: "vector", x }, { kind: "store", y: { buffer: y } }));
 * const product = await gpu.readF32(y);
 *
 * // The same of several tokens
 * const range = await createTokenRange(gpu, tokens);
 * const xs = await gpu.uploadStorage("xs", new Float32Array(tokens * channels).fill(1));
 * const ys = await gpu.createStorage("ys", tokens * rows * 4);
 * gpu.submit(await fusedGemm(gpu, matrix, { range, x: xs, y: ys }));
 * const products = await gpu.readF32(ys);
 * const close = (a: number, b: number) => Math.abs(a - b) <= 0.02 * Math.abs(b) + 0.02;
 * assert(products.every((value, i) => close(value, product[i % rows])));
 * ```
 *
 * A kernel of your own, beside them:
 *
 * ```ts
 * import { openGpu, wholeShader } from "@twobit/twobit/kernels";
 * import { assertEquals } from "@std/assert";
 *
 * const code = "@group(0) @binding(0) var<storage, read_write> y: array<f32>; @compute @workgroup_size(1) " +
 *   "fn main(@builtin(workgroup_id) id: vec3<u32>) { y[id.x] *= 2; }";
 * using gpu = await openGpu();
 * const y = await gpu.uploadStorage("y", Float32Array.of(1, 2, 3, 4));
 * gpu.submit([await gpu.makeDispatch(wholeShader("double", code), { buffers: { y }, workgroups: [4, 1, 1] })]);
 * assertEquals(await gpu.readF32(y), Float32Array.of(2, 4, 6, 8));
 * ```
 *
 * Decoding to f16, as code does that multiplies in two passes:
 *
 * ```ts
 * import { createDequantized, dequantizeOnGpu, Gpu, openGpu, uploadPackedMatrix } from "@twobit/twobit/kernels";
 * import { dequantize, quantizeTwobit, SETTINGS } from "@twobit/twobit/quant";
 * import { assert } from "@std/assert";
 *
 * const weights = Float32Array.from({ length: 32 * 256 }, (_, i) => Math.sin(i));
 * const packed = quantizeTwobit(weights, 32, 256, SETTINGS);
 * using gpu: Gpu = await openGpu();
 * const matrix = await uploadPackedMatrix(gpu, packed);
 * const target = await createDequantized(gpu, matrix);
 * gpu.submit(await dequantizeOnGpu(gpu, matrix, target));
 * const { buffer } = target.slabs[0].weights;
 * const decoded = new Float16Array(await gpu.read(buffer));
 * assert(dequantize(packed).every((value, i) => decoded[i] === Math.f16round(value)));
 * ```
 *
 * @module
 */
export type { Capabilities, SubgroupMatrixConfig } from "./kernels/gpu/capabilities.ts";
export type { DeviceProfile } from "./kernels/gpu/device_profile.ts";
export {
  type Constants,
  type Dispatch,
  type DispatchParts,
  Gpu,
  type GpuOptions,
  type Kernel,
  type NamedBuffers,
  openGpu,
} from "./kernels/gpu/gpu.ts";
export type { Plane } from "./kernels/gpu/plane.ts";
export { type Shader, wholeShader } from "./kernels/gpu/shader.ts";
export type { F16Matrix, F16Slab } from "./kernels/matrix/f16_matrix.ts";
export { type PackedMatrix, type PackedSlab, uploadPackedMatrix } from "./kernels/matrix/packed_matrix.ts";
export { fusedGemm } from "./kernels/product/fused_gemm.ts";
export { fusedGemv, type FusedGemvOptions } from "./kernels/product/fused_gemv.ts";
export type { ActivationBits } from "./kernels/product/pack_activations.ts";
export type { AttentionInput, Epilogue, GemvInput, Prologue } from "./kernels/product/prologue_epilogue.ts";
export { createDequantized, dequantizeOnGpu, type DequantizeOptions } from "./kernels/product/two_pass_gemv.ts";
export type { FewProduct, FewScratch, RangeProduct, SumsNorm } from "./kernels/product/weight_format.ts";
export { createTokenRange, type TokenRange } from "./kernels/tokens/token_range.ts";
