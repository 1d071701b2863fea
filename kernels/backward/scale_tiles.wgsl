// Second-order scales from their logarithms' changes, rounded to f16:
//
//   tile_scale[i] = f16(start[i] * exp(change[i]))
//
// A scale keeps its sign, is never infinite, and 0 only where it was.
//
// Bindings:
//   0 start       u32 [words]: d of two groups, f16 each
//   1 change      vec2<f32> [words]
//   2 tile_scale  u32 [words]
//
// Mapping: a thread a word; workgroups spread over x and y.
override words: u32 = 1;

@group(0) @binding(0) var<storage, read> start: array<u32>;
@group(0) @binding(1) var<storage, read> change: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> tile_scale: array<u32>;

// The smallest and the largest size of an f16.
const SMALLEST = 5.9604644775390625e-8;
const LARGEST = 65504.0;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>) {
  let at = id.y * workgroups.x * 256u + id.x;
  if (at >= words) { return; }
  let before = unpack2x16float(start[at]);
  tile_scale[at] = pack2x16float(sign(before) * clamp(abs(before) * exp(change[at]), vec2(SMALLEST), vec2(LARGEST)));
}
