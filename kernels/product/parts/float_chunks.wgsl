// is: chunks
// The input of f16_gemv.wgsl as f32, x vec4<f32> [tokens, 2 C], and where `is_norm` its norm on the way: each team sums
// the squares of x beside its rows, and multiplies by the norm's factor at the end.
override is_norm: u32 = 0;
override epsilon: f32 = 0.0;

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> norm_weight: array<vec4<f32>>; // [2 C]

fn load_chunk(token: u32, chunk: u32) -> Chunk {
  let at = 2u * chunk;
  let low = x[token * 2u * chunks + at];
  let high = x[token * 2u * chunks + at + 1u];
  if (is_norm == 0u) { return Chunk(low, high, 0.0); }
  return Chunk(low * norm_weight[at], high * norm_weight[at + 1u], dot(low, low) + dot(high, high));
}

fn input_factor(squares: f32) -> f32 {
  if (is_norm == 0u) { return 1.0; }
  return inverseSqrt(squares / f32(8u * chunks) + epsilon);
}
