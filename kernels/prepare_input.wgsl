// Makes the f16 input of a product from f32: a vector, a norm or combined attention, see lib/input_values.wgsl.
//
// Bindings:
//   0 values       f32, see ValuesInput in gemv_modes.ts
//   1 norm_weight  f32 [channels]
//   2 prepared     vec2<u32> [tokens, quads]  f16, four channels each, 0 past the end of a row
//
// Mapping: one thread four channels at a time; workgroup.y is the token. A norm takes one workgroup, whose threads also
// sum the squares of all channels.
override channels: u32 = 1;
override quads: u32 = 2;
override input_kind: u32 = 0; // this and the next three: see lib/input_values.wgsl
override splits: u32 = 1;
override head_size: u32 = 16;
override epsilon: f32 = 0.0;
override team: u32 = 32;
override workgroup_size: u32 = 256;

@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read> norm_weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> prepared: array<vec2<u32>>;

var<workgroup> team_squares: array<f32, workgroup_size / team>;

@compute @workgroup_size(workgroup_size)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let token = workgroup.y;
  let first = workgroup.x * workgroup_size + thread;
  // Loaded before a norm's sum, so that they don't wait for it.
  var input = load_input(token, 4u * first, 1u);
  var factor = 1.0;
  if (input_kind == RMS_NORM) { factor = norm_factor_of(sum_squares(input, token, thread)); }
  for (var quad = first; quad < quads; quad += count.x * workgroup_size) {
    if (quad != first) { input = load_input(token, 4u * quad, 1u); }
    let x = input_values(input, 4u * quad, 1u) * factor;
    prepared[token * quads + quad] = vec2(pack2x16float(x.xy), pack2x16float(x.zw));
  }
}

// Sum over the token; `own` is the thread's first input.
fn sum_squares(own: Input, token: u32, thread: u32) -> f32 {
  var squares = input_squares(own, 4u * thread, 1u);
  for (var quad = thread + workgroup_size; quad < quads; quad += workgroup_size) {
    squares += input_squares(load_input(token, 4u * quad, 1u), 4u * quad, 1u);
  }
  squares = sum_strided(squares, thread, 1u, team);
  if (thread % team == 0u) { team_squares[thread / team] = squares; }
  workgroupBarrier();
  squares = 0.0;
  for (var i = thread % team; i < workgroup_size / team; i += team) { squares += team_squares[i]; }
  return sum_strided(squares, thread, 1u, team);
}
