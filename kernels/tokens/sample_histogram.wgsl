// needs: pick_best sampling
// Before a draw with top_k or top_p: how many tokens, and how much probability, lie how far below the best logit; for
// each of some sequences.
//
// Bindings: settings and selection of parts/sampling.wgsl, and
//   0 logits      f32 [sequences, length]
//   1 candidates  vec2<u32> [sequences, candidate_count]  bits of the logit, token: of all parts of the vocabulary
//
// Mapping: workgroup.z is the sequence; threads of all its workgroups take neighbouring logits in turn. A workgroup
// counts in its own memory and adds what it found to `selection`, whose counts are 0 before. Without top_k and top_p
// only the best logit is noted.
override length: u32 = 1;
override candidate_count: u32 = 1;
override workgroup_size: u32 = 256;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> candidates: array<vec2<u32>>;

var<workgroup> counts: array<atomic<u32>, bins>;
var<workgroup> masses: array<atomic<u32>, bins>;

@compute @workgroup_size(workgroup_size)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  var best = no_best();
  for (var i = thread; i < candidate_count; i += workgroup_size) {
    let other = candidates[workgroup.z * candidate_count + i];
    best = better(best, Best(bitcast<f32>(other.x), other.y));
  }
  best = best_of_workgroup(best, thread);
  let first = workgroup.z * selection_words();
  if (workgroup.x == 0u && thread == 0u) { atomicStore(&selection[first], bitcast<u32>(best.value)); }
  let own = settings[workgroup.z];
  if (!has_top_k(own) && !has_top_p(own)) { return; }
  for (var i = workgroup.x * workgroup_size + thread; i < length; i += count.x * workgroup_size) {
    let depth = depth_of(logits[workgroup.z * length + i], best.value, own);
    let bin = bin_of(depth);
    if (bin < bins) {
      atomicAdd(&counts[bin], 1u);
      atomicAdd(&masses[bin], mass_of(depth));
    }
  }
  workgroupBarrier();
  for (var bin = thread; bin < bins; bin += workgroup_size) {
    let found = atomicLoad(&counts[bin]);
    if (found > 0u) {
      atomicAdd(&selection[first + 2u + bin], found);
      atomicAdd(&selection[first + 2u + bins + bin], atomicLoad(&masses[bin]));
    }
  }
}
