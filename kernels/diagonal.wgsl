// The diagonal of a square matrix: diagonal[i] = matrix[i, i].
//
// Bindings:
//   0 matrix    f32 [size, size]
//   1 diagonal  f32 [size]
//
// Mapping: a thread an element.
override size: u32 = 1;

@group(0) @binding(0) var<storage, read> matrix: array<f32>;
@group(0) @binding(1) var<storage, read_write> diagonal: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < size) { diagonal[id.x] = matrix[id.x * size + id.x]; }
}
