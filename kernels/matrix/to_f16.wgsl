// Rounds f32 to f16, two a word: the weights of an f16 matrix whose channels are a multiple of 8, or activations.
//
// Bindings:
//   0 x       vec4<f32> [length / 4]
//   1 halves  vec2<u32> [length / 4]
//
// Mapping: a thread four elements; workgroups spread over x and y.
override fours: u32 = 1;
override factor: f32 = 1.0;

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> halves: array<vec2<u32>>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>) {
  let at = id.y * count.x * 256u + id.x;
  if (at >= fours) { return; }
  let four = factor * x[at];
  halves[at] = vec2(pack2x16float(four.xy), pack2x16float(four.zw));
}
