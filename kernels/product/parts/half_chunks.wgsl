// needs: halves
// is: chunks
// The input of f16_gemv.wgsl as f16: x vec4<u32> [tokens, C], 8 f16 each.
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;

fn load_chunk(token: u32, chunk: u32) -> Chunk {
  let words = x[token * chunks + chunk];
  return Chunk(low_half(words), high_half(words), 0.0);
}

fn input_factor(squares: f32) -> f32 {
  return 1.0;
}
