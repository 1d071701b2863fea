// Combining attention over the parts of a sequence, four at a time: see Prologue "attention" in prologue_epilogue.ts.

// Four channels of a head over the splits so far.
struct Combined {
  largest: f32,
  total: f32,
  sum: vec4<f32>,
}

fn nothing_combined() -> Combined {
  return Combined(-3.0e38, 0.0, vec4(0.0));
}

// Takes four splits in, with the largest score m and the sum of exp l of each. l is 0 or at least 1, or not a number,
// which must not count as 0: compared by its bits, since a compiler may make != false for it.
fn combine(so_far: Combined, m: vec4<f32>, l: vec4<f32>, sums: mat4x4<f32>, exists: vec4<bool>) -> Combined {
  let is_used = (bitcast<vec4<u32>>(l) != vec4(0u)) & exists;
  let scores = select(vec4(-3.0e38), m, is_used);
  let largest = max(max(so_far.largest, max(scores.x, scores.y)), max(scores.z, scores.w));
  let share = select(vec4(0.0), exp(scores - largest), is_used);
  let rest = exp(so_far.largest - largest);
  return Combined(
    largest,
    so_far.total * rest + dot(share, select(vec4(0.0), l, is_used)),
    so_far.sum * rest + share.x * sums[0] + share.y * sums[1] + share.z * sums[2] + share.w * sums[3],
  );
}

fn attention_of(combined: Combined) -> vec4<f32> {
  return select(combined.sum / combined.total, vec4(0.0), combined.total == 0.0);
}
