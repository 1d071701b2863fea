// The diagonal of a square matrix, as far as one slab of it goes: diagonal[i] = slab[i - first, i].
//
// Bindings (R = rows of the slab):
//   0 range     uniform: first row of the slab, its rows
//   1 slab      f32 [R, size]
//   2 diagonal  f32 [size]
//
// Mapping: a thread an element.
override size: u32 = 1;

struct Range {
  first: u32,
  rows: u32,
}

@group(0) @binding(0) var<uniform> range: Range;
@group(0) @binding(1) var<storage, read> slab: array<f32>;
@group(0) @binding(2) var<storage, read_write> diagonal: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < range.rows) { diagonal[range.first + id.x] = slab[id.x * size + range.first + id.x]; }
}
