// Copies the lower triangle of a square matrix to the upper one, so that a factor can be read by rows and by columns.
//
// Bindings:
//   0 matrix  f32 [size, size]
//
// Mapping: a thread an element, 64 columns a workgroup; workgroup.y is the row.
override size: u32 = 1;

@group(0) @binding(0) var<storage, read_write> matrix: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < size && id.x > id.y) { matrix[id.y * size + id.x] = matrix[id.x * size + id.y]; }
}
