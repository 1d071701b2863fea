// needs: pick_best score
// The best token of each part of the vocabulary, for each of some sequences: the most likely one, by score_logit.wgsl,
// or the one drawn, by score_drawn.wgsl.
//
// Bindings:
//   0 logits      f32 [sequences, length]
//   1 candidates  vec2<u32> [sequences, num_workgroups.x]   bits of the score, token
//
// Mapping: workgroup.z is the sequence. Threads of all its workgroups take neighbouring logits in turn; a workgroup
// writes one candidate, which is no_best() where it has no token that counts: other workgroups may have better.
override length: u32 = 1;
override workgroup_size: u32 = 256;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> candidates: array<vec2<u32>>;

@compute @workgroup_size(workgroup_size)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  var best = no_best();
  for (var i = workgroup.x * workgroup_size + thread; i < length; i += count.x * workgroup_size) {
    best = better(best, scored(workgroup.z, i));
  }
  best = best_of_workgroup(best, thread);
  if (thread == 0u) { candidates[workgroup.z * count.x + workgroup.x] = vec2(bitcast<u32>(best.value), best.index); }
}
