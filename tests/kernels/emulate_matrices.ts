// Matrices of subgroups where there are no units for them: the same shader with functions in place of the built-in
// ones. Of sums a lane has half a row, of a left factor the whole row; a right factor stays in workgroup memory, as its
// place, its stride and whether a column lies in a row there. An array may be one of several in an array of them.
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import type { Shader } from "../../kernels/gpu/shader.ts";

const HALVES = `
var<private> emulated_lane: u32;
// 16, which compilers don't see: they would write out every loop of every product.
var<private> emulated_depth: u32;

fn emulated_four(words: vec4<u32>, pair: u32) -> vec4<f32> {
  return vec4(unpack2x16float(words[pair]), unpack2x16float(words[pair + 1u]));
}
`;

/** The array as functions see it, which get the index of a block where it is made of blocks. */
const blockOf = (array: string, code: string) => code.includes(`${array}: array<Block`) ? `${array}[block]` : array;

const leftOf = (array: string, block: string) => `
fn emulated_left_${array}(block: u32, first: u32, stride: u32) -> Left {
  let low = ${block}[first + emulated_lane / 2u * stride];
  let high = ${block}[first + emulated_lane / 2u * stride + 1u];
  return Left(emulated_four(low, 0u), emulated_four(low, 2u), emulated_four(high, 0u), emulated_four(high, 2u));
}
`;

const productOf = (array: string) => `
fn emulated_sum(left: Left, right: Right, column: u32) -> f32 {
  let block = right.w;
  let first = right.x + (emulated_lane % 2u * 8u + column) * right.y;
  let low = ${array}[first];
  let high = ${array}[first + 1u];
  return dot(left[0], emulated_four(low, 0u)) + dot(left[1], emulated_four(low, 2u)) +
    dot(left[2], emulated_four(high, 0u)) + dot(left[3], emulated_four(high, 2u));
}

fn emulated_four_sums(left: Left, right: Right, column: u32) -> vec4<f32> {
  return vec4(
    emulated_sum(left, right, column),
    emulated_sum(left, right, column + 1u),
    emulated_sum(left, right, column + 2u),
    emulated_sum(left, right, column + 3u),
  );
}

fn emulated_product(left: Left, right: Right, sum: Sum) -> Sum {
  if (right.z == 1u) {
    return Sum(sum[0] + emulated_four_sums(left, right, 0u), sum[1] + emulated_four_sums(left, right, 4u));
  }
  let block = right.w;
  var row = left;
  var sums = sum;
  for (var k = 0u; k < emulated_depth; k++) {
    let words = ${array}[right.x + k * right.y + emulated_lane % 2u];
    let factor = row[k / 4u][k % 4u];
    sums[0] += factor * emulated_four(words, 0u);
    sums[1] += factor * emulated_four(words, 2u);
  }
  return sums;
}
`;

/** To an array of numbers, or of vectors where it is made of blocks. */
const storeOf = (array: string, block: string) =>
  array !== block
    ? `
fn emulated_store(block: u32, first: u32, sum: Sum, stride: u32) {
  let at = first + emulated_lane / 2u * stride + emulated_lane % 2u * 2u;
  ${block}[at] = bitcast<vec4<u32>>(sum[0]);
  ${block}[at + 1u] = bitcast<vec4<u32>>(sum[1]);
}
`
    : `
fn emulated_store(block: u32, first: u32, sum: Sum, stride: u32) {
  let at = first + emulated_lane / 2u * stride + emulated_lane % 2u * 8u;
  for (var i = 0u; i < 4u; i++) {
    ${array}[at + i] = sum[0][i];
    ${array}[at + 4u + i] = sum[1][i];
  }
}
`;

const LEFT = /subgroupMatrixLoad<Left, row_major>\(&(\w+)(?:\[(.*?)\])?, /g;
const RIGHT = /subgroupMatrixLoad<Right, (col|row)_major>\(&(\w+)(?:\[(.*?)\])?, (.*?)\);/g;
const STORE = /subgroupMatrixStore<row_major>\(&(\w+)(?:\[(.*?)\])?, /g;

/** A shader with functions for the built-in ones; its right factors come from one array, and its sums go to one. */
function emulated(shader: Shader): Shader {
  const { code } = shader;
  const names = (pattern: RegExp, group: number) =>
    new Set(Array.from(code.matchAll(pattern), (match) => match[group]));
  const own = code
    .replace(/alias Left = .*/, "alias Left = mat4x4<f32>;")
    .replace(/alias Right = .*/, "alias Right = vec4<u32>;")
    .replace(/alias Sum = .*/, "alias Sum = mat2x4<f32>;")
    .replace(/alias Halves = .*/, "alias Halves = vec2<f32>;")
    .replace("bitcast<Halves>(", "unpack2x16float(")
    .replace("bitcast<u32>(halves)", "pack2x16float(halves)")
    .replace(LEFT, (_, array, block = "0u") => `emulated_left_${array}(${block}, `)
    .replace(RIGHT, (_, major, _array, block = "0u", place) => `vec4(${place}, ${major === "col" ? 1 : 0}u, ${block});`)
    .replaceAll("subgroupMatrixMultiplyAccumulate(", "emulated_product(")
    .replace(STORE, (_, _array, block = "0u") => `emulated_store(${block}, `)
    .replace(
      /(fn main\([^{]*\{\n)/,
      "$1  emulated_lane = thread % 32u;\n  emulated_depth = 16u + (workgroup.x >> 31u);\n",
    );
  const [right] = names(RIGHT, 2);
  const [stored] = names(STORE, 1);
  const functions = [
    HALVES,
    ...Array.from(names(LEFT, 1), (array) => leftOf(array, blockOf(array, code))),
    productOf(blockOf(right, code)),
    storeOf(stored, blockOf(stored, code)),
  ];
  return { ...shader, code: own + functions.join("") };
}

/** Makes a device emulate matrices of subgroups, where it has none. */
export function emulateMatrices(gpu: Gpu): void {
  if (gpu.profile.matrixUnits) return;
  const { createKernel } = gpu;
  const known = new Map<Shader, Shader>();
  gpu.createKernel = (shader, constants) => {
    if (!shader.code.includes("subgroupMatrixLoad")) return createKernel.call(gpu, shader, constants);
    const own = known.get(shader) ?? emulated(shader);
    known.set(shader, own);
    return createKernel.call(gpu, own, constants);
  };
}
