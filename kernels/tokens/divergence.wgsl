// needs: token_range sum_workgroup
// How far predictions are from those of a reference: the Kullback-Leibler divergence of each token, in nats,
//
//   divergences[t] = sum over i of p[t, i] (log p[t, i] - log q[t, i])
//
// with p and q the softmax of the reference's logits and of the others. With logits less their maximum, r and s, that is
// sum of p (r - s) - log(sum of exp(r)) + log(sum of exp(s)).
//
// Bindings (T = range.tokens):
//   0 range        uniform, see tokens/parts/token_range.wgsl
//   1 reference    f32 [T, vocabulary]   logits
//   2 logits       f32 [T, vocabulary]
//   3 divergences  f32 [T]
//
// Mapping: a workgroup of 256 threads a token, its index in z.
override vocabulary: u32 = 1;

@group(0) @binding(1) var<storage, read> reference: array<f32>;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read_write> divergences: array<f32>;

// Of the reference and of the others.
var<workgroup> largest_logits: array<vec2<f32>, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  if (workgroup.z >= range.tokens) { return; }
  let first = workgroup.z * vocabulary;
  // Threads past the end of a small vocabulary have its last token.
  let own = first + min(thread, vocabulary - 1u);
  var largest = vec2(reference[own], logits[own]);
  for (var i = thread; i < vocabulary; i += 256u) {
    largest = max(largest, vec2(reference[first + i], logits[first + i]));
  }
  largest = largest_of_workgroup(largest, thread);
  var sums = vec3(0.0);
  for (var i = thread; i < vocabulary; i += 256u) {
    let r = reference[first + i] - largest.x;
    let s = logits[first + i] - largest.y;
    let p = exp(r);
    sums += vec3(p, exp(s), p * (r - s));
  }
  let reference_sum = sum_workgroup(sums.x, thread);
  let sum = sum_workgroup(sums.y, thread);
  let difference = sum_workgroup(sums.z, thread) / reference_sum;
  if (thread == 0u) { divergences[workgroup.z] = difference - log(reference_sum) + log(sum); }
}

fn largest_of_workgroup(own: vec2<f32>, thread: u32) -> vec2<f32> {
  largest_logits[thread] = own;
  for (var distance = 128u; distance > 0u; distance /= 2u) {
    workgroupBarrier();
    if (thread < distance) {
      largest_logits[thread] = max(largest_logits[thread], largest_logits[thread + distance]);
    }
  }
  workgroupBarrier();
  return largest_logits[0];
}
