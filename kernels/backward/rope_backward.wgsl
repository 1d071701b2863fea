// needs: token_range
// From attention's gradients back to those of the qkv product, in place: rotations are turned back, then comes the norm
// of each head, where there is one. Elements i and i + head_size / 2 of a head are a pair.
//
//   dn = turned back dy;  dx[i] = r (weight[i] dn[i] - r^2 x[i] * mean over j of weight[j] dn[j] x[j])
//   with x = before + bias, r = 1 / sqrt(mean over j of x[j]^2 + epsilon); without a norm dx = dn
//
// Values neither rotate nor have a norm: they stay as they are. Tokens are of windows of `window_tokens`.
//
// Bindings (T = range.tokens, width = (heads + 2 key_value_heads) * head_size):
//   0 range       uniform, see tokens/parts/token_range.wgsl
//   1 rotations   vec2<f32> [window_tokens or more, head_size / 2]   cosine and sine of each position's angles
//   2 before      f32 [T, width]: the qkv product, where has_norm
//   3 bias        f32 [width], where has_bias
//   4 head_norms  f32 [2, head_size]: of q, of k, where has_norm
//   5 gradient    f32 [T, width]
//
// Mapping: a workgroup a head of a token, whose index is in z; a thread a pair.
override heads: u32 = 1;
override key_value_heads: u32 = 1;
override head_size: u32 = 8;
override window_tokens: u32 = 1;
override has_bias: u32 = 0;
override has_norm: u32 = 0;
override epsilon: f32 = 0.0;
override workgroup_size: u32 = 4; // = head_size / 2

@group(0) @binding(1) var<storage, read> rotations: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> before: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> head_norms: array<f32>;
@group(0) @binding(5) var<storage, read_write> gradient: array<f32>;

// Of each pair the sum of x^2 and of weight dn x.
var<workgroup> pair_sums: array<vec2<f32>, workgroup_size>;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  if (workgroup.z >= range.tokens) { return; }
  let half = head_size / 2u;
  let channel = workgroup.x * head_size + thread;
  let at = workgroup.z * (heads + 2u * key_value_heads) * head_size + channel;
  let turn = rotations[workgroup.z % window_tokens * half + thread];
  let pair = vec2(gradient[at], gradient[at + half]);
  var result = vec2(pair.x * turn.x + pair.y * turn.y, pair.y * turn.x - pair.x * turn.y);
  if (has_norm == 1u) {
    let norm = select(0u, head_size, workgroup.x >= heads) + thread;
    var x = vec2(before[at], before[at + half]);
    if (has_bias == 1u) { x += vec2(bias[channel], bias[channel + half]); }
    result = normalize_backward(x, result * vec2(head_norms[norm], head_norms[norm + half]), thread);
  }
  gradient[at] = result.x;
  gradient[at + half] = result.y;
}

fn normalize_backward(x: vec2<f32>, weighted: vec2<f32>, thread: u32) -> vec2<f32> {
  pair_sums[thread] = vec2(dot(x, x), dot(x, weighted));
  workgroupBarrier();
  var sums = vec2(0.0);
  for (var i = 0u; i < workgroup_size; i++) { sums += pair_sums[i]; }
  let means = sums / f32(head_size);
  let factor = 1.0 / sqrt(means.x + epsilon);
  return factor * (weighted - factor * factor * means.y * x);
}
