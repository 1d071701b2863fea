// Attention over a sequence that was split: see the kind `attention` of ValuesInput in gemv_modes.ts for what lies where.
// Needs the binding `values` and the overrides `channels`, `splits` and `head_size`.

fn load_values(at: vec4<u32>) -> vec4<f32> {
  return vec4(values[at.x], values[at.y], values[at.z], values[at.w]);
}

// The channels `at` of a token, all of one head. Combines four splits at a time, all their loads in flight together.
fn attention(token: u32, at: vec4<u32>) -> vec4<f32> {
  let heads = channels / head_size;
  let sums = token * splits * (channels + 2u * heads);
  let pairs = sums + splits * channels + 2u * (at.x / head_size);
  var largest = -3.0e38;
  var total = 0.0;
  var sum = vec4(0.0);
  for (var first = 0u; first < splits; first += 4u) {
    let split = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(splits - 1u));
    let pair = pairs + 2u * heads * split;
    let m = load_values(pair);
    let l = load_values(pair + 1u);
    let acc0 = load_values(sums + split.x * channels + at);
    let acc1 = load_values(sums + split.y * channels + at);
    let acc2 = load_values(sums + split.z * channels + at);
    let acc3 = load_values(sums + split.w * channels + at);
    // l is 0 or at least 1, or not a number, which must not count as 0: compared by its bits, since a compiler may make
    // != false for it. A split past the last is the last again.
    let is_used = (bitcast<vec4<u32>>(l) != vec4(0u)) & (vec4(first) + vec4(0u, 1u, 2u, 3u) < vec4(splits));
    let scores = select(vec4(-3.0e38), m, is_used);
    let next = max(max(largest, max(scores.x, scores.y)), max(scores.z, scores.w));
    let share = select(vec4(0.0), exp(scores - next), is_used);
    let rest = exp(largest - next);
    total = total * rest + dot(share, select(vec4(0.0), l, is_used));
    sum = sum * rest + share.x * acc0 + share.y * acc1 + share.z * acc2 + share.w * acc3;
    largest = next;
  }
  return select(sum / total, vec4(0.0), total == 0.0);
}
