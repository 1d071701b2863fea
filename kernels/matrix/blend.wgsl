// y = x + factor * y, element by element.
//
// Bindings:
//   0 x  vec4<f32> [length / 4]
//   1 y  vec4<f32> [length / 4]
//
// Mapping: a thread four elements; workgroups spread over x and y.
override fours: u32 = 1;
override factor: f32 = 1.0;

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>) {
  let at = id.y * count.x * 256u + id.x;
  if (at < fours) { y[at] = x[at] + factor * y[at]; }
}
