// needs: token_range sum_workgroup
// Kullback-Leibler divergence of a model's next-token distribution q from the wanted one p, and its gradient in place of
// the model's logits. Of each token, with p = softmax(wanted), q = softmax(logits):
//
//   divergences[t] = weights[t] * sum over i of p[i] (log p[i] - log q[i]);  logits[t, i] = weights[t] (q[i] - p[i])
//
// Bindings (T = range.tokens):
//   0 range        uniform, see tokens/parts/token_range.wgsl
//   1 wanted       f32 [T, stride], of which `vocabulary` are read
//   2 weights      f32 [T]
//   3 logits       f32 [T, stride]
//   4 divergences  f32 [T]
//
// Mapping: a workgroup of 256 threads a token, its index in z.
override vocabulary: u32 = 1;
override stride: u32 = 1;

@group(0) @binding(1) var<storage, read> wanted: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> logits: array<f32>;
@group(0) @binding(4) var<storage, read_write> divergences: array<f32>;

// Largest logit and sum of exp(logit - largest), of the wanted and of the model's logits.
struct Sums {
  largest: vec2<f32>,
  total: vec2<f32>,
}

var<workgroup> sums: array<Sums, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let token = workgroup.z;
  if (token >= range.tokens) { return; }
  let first = token * stride;
  // Lower than any logit, yet far from overflow when two are subtracted.
  var own = Sums(vec2(-1e38), vec2(0.0));
  for (var i = thread; i < vocabulary; i += 256u) {
    own = join(own, Sums(vec2(wanted[first + i], logits[first + i]), vec2(1.0)));
  }
  let all = join_workgroup(own, thread);
  let log_sums = all.largest + log(all.total);
  var divergence = 0.0;
  for (var i = thread; i < vocabulary; i += 256u) {
    let logs = vec2(wanted[first + i], logits[first + i]) - log_sums;
    let shares = exp(logs);
    divergence = fma(shares.x, logs.x - logs.y, divergence);
    logits[first + i] = weights[token] * (shares.y - shares.x);
  }
  let sum = sum_workgroup(divergence, thread);
  if (thread == 0u) { divergences[token] = weights[token] * sum; }
}

fn join(a: Sums, b: Sums) -> Sums {
  let largest = max(a.largest, b.largest);
  return Sums(largest, a.total * exp(a.largest - largest) + b.total * exp(b.largest - largest));
}

fn join_workgroup(own: Sums, thread: u32) -> Sums {
  sums[thread] = own;
  for (var distance = 128u; distance > 0u; distance /= 2u) {
    workgroupBarrier();
    if (thread < distance) { sums[thread] = join(sums[thread], sums[thread + distance]); }
  }
  workgroupBarrier();
  return sums[0];
}
