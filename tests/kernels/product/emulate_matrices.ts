/**
 * Matrices of subgroups where there are no units for them: the same shader with functions in place of the built-in
 * ones. A lane has half a row of 16 sums; factors stay in workgroup memory, as their place and stride.
 *
 * @module
 */
import type { Gpu } from "../../../kernels/gpu/gpu.ts";
import type { Shader } from "../../../kernels/gpu/shader.ts";

const FUNCTIONS = `
var<private> emulated_lane: u32;

fn emulated_token(at: vec2<u32>, k: u32) -> f32 {
  let words = token_tile[at.x + emulated_lane / 2u * at.y + k / 8u];
  return unpack2x16float(words[k % 8u / 2u] >> (16u * (k % 2u))).x;
}

fn emulated_weight(at: vec2<u32>, k: u32, i: u32) -> f32 {
  let words = weight_tile[at.x + (emulated_lane % 2u * 8u + i) * at.y + k / 8u];
  return unpack2x16float(words[k % 8u / 2u] >> (16u * (k % 2u))).x;
}

fn emulated_weights(at: vec2<u32>, k: u32, i: u32) -> vec4<f32> {
  return vec4(
    emulated_weight(at, k, i),
    emulated_weight(at, k, i + 1u),
    emulated_weight(at, k, i + 2u),
    emulated_weight(at, k, i + 3u),
  );
}

fn emulated_product(left: Left, right: Right, sum: Sum) -> Sum {
  var sums = sum;
  for (var k = 0u; k < 16u; k++) {
    let activation = vec4(emulated_token(left, k));
    sums[0] = fma(activation, emulated_weights(right, k, 0u), sums[0]);
    sums[1] = fma(activation, emulated_weights(right, k, 4u), sums[1]);
  }
  return sums;
}

fn emulated_store(first: u32, sum: Sum, stride: u32) {
  let at = first + emulated_lane / 2u * stride + emulated_lane % 2u * 8u;
  for (var i = 0u; i < 4u; i++) {
    sum_tile[at + i] = sum[0][i];
    sum_tile[at + 4u + i] = sum[1][i];
  }
}
`;

const REPLACED: readonly (readonly [RegExp, string])[] = [
  [/alias Left = .*/, "alias Left = vec2<u32>;"],
  [/alias Right = .*/, "alias Right = vec2<u32>;"],
  [/alias Sum = .*/, "alias Sum = mat2x4<f32>;"],
  [/subgroupMatrixLoad<Left, row_major>\(&token_tile, /, "vec2("],
  [/subgroupMatrixLoad<Right, col_major>\(&weight_tile, /, "vec2("],
  [/subgroupMatrixMultiplyAccumulate\(/g, "emulated_product("],
  [/subgroupMatrixStore<row_major>\(&sum_tile, /, "emulated_store("],
  [/(fn main\([^{]*\{\n)/, "$1  emulated_lane = thread % 32u;\n"],
];

/** Makes a device emulate matrices of subgroups, where it has none. */
export function emulateMatrices(gpu: Gpu): void {
  if (gpu.profile.matrixUnits) return;
  const { createKernel } = gpu;
  const known = new Map<Shader, Shader>();
  const emulated = (shader: Shader) => {
    const code = REPLACED.reduce((code, [from, to]) => code.replace(from, to), shader.code);
    return { ...shader, code: code + FUNCTIONS };
  };
  gpu.createKernel = (shader, constants) => {
    if (!shader.code.includes("subgroupMatrixLoad")) return createKernel.call(gpu, shader, constants);
    const own = known.get(shader) ?? emulated(shader);
    known.set(shader, own);
    return createKernel.call(gpu, own, constants);
  };
}
