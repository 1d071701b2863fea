// What kernels share that take error feedback through a block of channels, in the order of quantization. From the
// kernel: `rows`.
//
// Bindings (C = channels):
//   0 block       uniform: first channel of the block, its channels, first channel of `carried`, the element of `factor`
//                 at which the block's first row begins
//   1 transposed  f32 [C, rows]: w, which e = w - q replaces
//   2 factor      vec4<f32> rows of C / 4: V in the upper triangle
//   3 carried     f32 [some channels, rows]: sum over the channels i before the block of e[i] V[i, k], zeroed when read
struct Block {
  first: u32,
  channels: u32,
  carried_first: u32,
  factor_first: u32,
}

@group(0) @binding(0) var<uniform> block: Block;
@group(0) @binding(1) var<storage, read_write> transposed: array<f32>;
@group(0) @binding(2) var<storage, read> factor: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> carried: array<f32>;

// What is carried to four channels of a row, from channel `at` of the block on.
fn take_four(at: u32, row: u32) -> vec4<f32> {
  let first = (block.first - block.carried_first + at) * rows + row;
  let sums = vec4(carried[first], carried[first + rows], carried[first + 2u * rows], carried[first + 3u * rows]);
  carried[first] = 0.0;
  carried[first + rows] = 0.0;
  carried[first + 2u * rows] = 0.0;
  carried[first + 3u * rows] = 0.0;
  return sums;
}
