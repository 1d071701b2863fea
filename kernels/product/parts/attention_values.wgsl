// needs: reduce_splits
// Attention over a sequence that was split: see the kind `attention` of Prologue in prologue_epilogue.ts for what lies
// where.
// From the kernel: the binding `values`.
override channels: u32 = 16;
override splits: u32 = 1;
override head_size: u32 = 16;

fn load_values(at: vec4<u32>) -> vec4<f32> {
  return vec4(values[at.x], values[at.y], values[at.z], values[at.w]);
}

// The channels `at` of a token, all of one head. Combines four splits at a time, all their loads in flight together; a
// split past the last is the last again.
fn attention(token: u32, at: vec4<u32>) -> vec4<f32> {
  let heads = channels / head_size;
  let sums = token * splits * (channels + 2u * heads);
  let pairs = sums + splits * channels + 2u * (at.x / head_size);
  var combined = nothing_combined();
  for (var first = 0u; first < splits; first += 4u) {
    let split = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(splits - 1u));
    let pair = pairs + 2u * heads * split;
    let m = load_values(pair);
    let l = load_values(pair + 1u);
    let four = mat4x4(
      load_values(sums + split.x * channels + at),
      load_values(sums + split.y * channels + at),
      load_values(sums + split.z * channels + at),
      load_values(sums + split.w * channels + at),
    );
    combined = combine(combined, m, l, four, vec4(first) + vec4(0u, 1u, 2u, 3u) < vec4(splits));
  }
  return attention_of(combined);
}
