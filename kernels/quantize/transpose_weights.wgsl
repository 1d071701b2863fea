// Turns rows of a matrix so that channels lie in rows, groups in the order of quantization: what the quantizing kernels
// read. They are added to what is there, the shift of a corrected target.
//
//   transposed[16 p + k, r] += weights[r - first, 16 group_order[p] + k]
//
// Bindings (P = groups without padding):
//   0 part         uniform: first row of the part, its rows
//   1 weights      vec4<f32> [part's rows, 4 P]
//   2 group_order  u32 [P]
//   3 transposed       f32 [16 P, rows]
//
// Mapping: a thread a group of a row, 64 rows a workgroup; workgroup.y is the position. A thread reads 64 bytes in a
// row, neighbours write neighbouring words.
override rows: u32 = 1;
override groups: u32 = 1; // without padding

struct Part {
  first: u32,
  rows: u32,
}

@group(0) @binding(0) var<uniform> part: Part;
@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> group_order: array<u32>;
@group(0) @binding(3) var<storage, read_write> transposed: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= part.rows) { return; }
  let source = 4u * (id.x * groups + group_order[id.y]);
  let target_at = 16u * id.y * rows + part.first + id.x;
  add_four(target_at, weights[source]);
  add_four(target_at + 4u * rows, weights[source + 1u]);
  add_four(target_at + 8u * rows, weights[source + 2u]);
  add_four(target_at + 12u * rows, weights[source + 3u]);
}

fn add_four(at: u32, values: vec4<f32>) {
  transposed[at] += values.x;
  transposed[at + rows] += values.y;
  transposed[at + 2u * rows] += values.z;
  transposed[at + 3u * rows] += values.w;
}
