// needs: token_range sum_workgroup
// What a model gave to the token that came next, and what it would have chosen:
//
//   log_likelihoods[t] = logits[t, targets[t]] - max - log(sum over i of exp(logits[t, i] - max))
//   best[t] = the first i whose logit is the maximum
//
// Bindings (T = range.tokens):
//   0 range            uniform, see tokens/parts/token_range.wgsl
//   1 logits           f32 [T, vocabulary]
//   2 targets          u32 [T]
//   3 log_likelihoods  f32 [T]
//   4 best             u32 [T]
//
// Mapping: a workgroup of 256 threads a token, its index in z.
override vocabulary: u32 = 1;

@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> log_likelihoods: array<f32>;
@group(0) @binding(4) var<storage, read_write> best: array<u32>;

struct Candidate {
  token: u32,
  logit: f32,
}

var<workgroup> candidates: array<Candidate, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  if (workgroup.z >= range.tokens) { return; }
  let first = workgroup.z * vocabulary;
  // Threads past the end of a small vocabulary vote for its last token.
  let last = vocabulary - 1u;
  var own = Candidate(min(thread, last), logits[first + min(thread, last)]);
  for (var i = thread + 256u; i < vocabulary; i += 256u) { own = better(own, Candidate(i, logits[first + i])); }
  let winner = best_of_workgroup(own, thread);
  var sum = 0.0;
  for (var i = thread; i < vocabulary; i += 256u) { sum += exp(logits[first + i] - winner.logit); }
  sum = sum_workgroup(sum, thread);
  if (thread == 0u) {
    let logit = logits[first + min(targets[workgroup.z], last)];
    log_likelihoods[workgroup.z] = logit - winner.logit - log(sum);
    best[workgroup.z] = winner.token;
  }
}

fn better(a: Candidate, b: Candidate) -> Candidate {
  if (b.logit > a.logit || (b.logit == a.logit && b.token < a.token)) { return b; }
  return a;
}

fn best_of_workgroup(own: Candidate, thread: u32) -> Candidate {
  candidates[thread] = own;
  for (var distance = 128u; distance > 0u; distance /= 2u) {
    workgroupBarrier();
    if (thread < distance) { candidates[thread] = better(candidates[thread], candidates[thread + distance]); }
  }
  workgroupBarrier();
  return candidates[0];
}
