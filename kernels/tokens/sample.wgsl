// needs: pick_best
// Draws a token for each of some sequences: temperature, then the top_k most likely, then of those the fewest whose
// probability reaches top_p.
//
// Bindings:
//   0 logits      f32 [sequences, length]
//   1 settings    vec4<u32> [sequences]  |temperature f32|top_p f32|top_k, 0 for all|seed|
//   2 sequence    vec2<u32> [sequences]  position, which together with the seed gives the random number, and another word
//   3 candidates  vec2<u32> [sequences]  bits of the logit, token
//
// Mapping: a workgroup a sequence, its index in z; thread t takes the logits t, t + workgroup_size, ... Thresholds are
// found by radix selection on order-preserving keys, 8 bits a pass: by count for top_k, by probability mass for top_p.
// Tokens with the logit of the last one that is kept are kept too. Mass is counted in integers, 2^30 for all, so that
// the sums don't depend on their order. Where the best logit isn't finite, or nothing has any mass, the token is
// NOT_A_NUMBER.
override length: u32 = 1;
override workgroup_size: u32 = 256;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> settings: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> sequence: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> candidates: array<vec2<u32>>;

const ALL_MASS = 1073741824.0;

var<workgroup> histogram: array<atomic<u32>, 256>;
var<workgroup> shared_words: array<u32, workgroup_size>;
var<workgroup> found: vec2<u32>;
var<workgroup> chosen: u32;

// Index of the workgroup's sequence.
var<private> own_sequence: u32;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  own_sequence = workgroup.z;
  let temperature = bitcast<f32>(settings[workgroup.z].x);
  let top_p = bitcast<f32>(settings[workgroup.z].y);
  let top_k = settings[workgroup.z].z;
  var best = no_best();
  for (var i = thread; i < length; i += workgroup_size) { best = better(best, candidate(logit(i), i)); }
  best = best_of_workgroup(best, thread);
  var threshold = 0u;
  if (top_k != 0u && top_k < length) { threshold = select_key(0u, top_k, best.value, 0.0, temperature, thread); }
  let unit = ALL_MASS / weigh(threshold, best.value, temperature, thread);
  if (top_p < 1.0) {
    let target_mass = u32(ceil(clamp(top_p, 0.0, 1.0) * f32(mass(threshold, best.value, unit, temperature, thread))));
    threshold = select_key(threshold, max(target_mass, 1u), best.value, unit, temperature, thread);
  }
  draw(threshold, best.value, unit, temperature, thread);
  if (thread == 0u) {
    let is_token = best.index < length;
    candidates[workgroup.z] = vec2(0u, select(NOT_A_NUMBER, chosen, is_token));
  }
}

fn logit(i: u32) -> f32 {
  return logits[own_sequence * length + i];
}

// An integer that orders as the float does.
fn key_of(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn weight_of(value: f32, largest: f32, temperature: f32) -> f32 {
  return exp((value - largest) / temperature);
}

// Sum of the weights at or above a key.
fn weigh(threshold: u32, largest: f32, temperature: f32, thread: u32) -> f32 {
  var sum = 0.0;
  for (var i = thread; i < length; i += workgroup_size) {
    if (key_of(logit(i)) >= threshold) { sum += weight_of(logit(i), largest, temperature); }
  }
  shared_words[thread] = bitcast<u32>(sum);
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < workgroup_size; i++) { total += bitcast<f32>(shared_words[i]); }
  workgroupBarrier();
  return total;
}

fn mass(threshold: u32, largest: f32, unit: f32, temperature: f32, thread: u32) -> u32 {
  var sum = 0u;
  for (var i = thread; i < length; i += workgroup_size) {
    if (key_of(logit(i)) >= threshold) { sum += mass_of(logit(i), largest, unit, temperature); }
  }
  shared_words[thread] = sum;
  workgroupBarrier();
  var total = 0u;
  for (var i = 0u; i < workgroup_size; i++) { total += shared_words[i]; }
  workgroupBarrier();
  return total;
}

fn mass_of(value: f32, largest: f32, unit: f32, temperature: f32) -> u32 {
  return u32(weight_of(value, largest, temperature) * unit);
}

// The largest key such that what lies at or above it, and above `least`, reaches `wanted`: a count where unit is 0,
// else a mass.
fn select_key(least: u32, wanted: u32, largest: f32, unit: f32, temperature: f32, thread: u32) -> u32 {
  var prefix = 0u;
  var missing = wanted;
  for (var shift = 24; shift >= 0; shift -= 8) {
    for (var bin = thread; bin < 256u; bin += workgroup_size) { atomicStore(&histogram[bin], 0u); }
    workgroupBarrier();
    let above = u32(shift) + 8u;
    for (var i = thread; i < length; i += workgroup_size) {
      let key = key_of(logit(i));
      let is_in = key >= least && (above == 32u || (key >> (above % 32u)) == (prefix >> (above % 32u)));
      var amount = 1u;
      if (unit != 0.0) { amount = mass_of(logit(i), largest, unit, temperature); }
      if (is_in) { atomicAdd(&histogram[(key >> u32(shift)) & 255u], amount); }
    }
    workgroupBarrier();
    if (thread == 0u) {
      var bin = 255u;
      var rest = missing;
      while (bin > 0u && atomicLoad(&histogram[bin]) < rest) {
        rest -= atomicLoad(&histogram[bin]);
        bin--;
      }
      found = vec2(bin, rest);
    }
    workgroupBarrier();
    prefix |= found.x << u32(shift);
    missing = found.y;
    workgroupBarrier();
  }
  return max(prefix, least);
}

// Picks the token in whose share of the mass the random number falls; tokens are in the order of threads. Where there
// is no mass, no thread has a share.
fn draw(threshold: u32, largest: f32, unit: f32, temperature: f32, thread: u32) {
  if (thread == 0u) { chosen = NOT_A_NUMBER; }
  let total = mass(threshold, largest, unit, temperature, thread);
  let position = sequence[own_sequence].x;
  var before = 0u;
  for (var i = 0u; i < thread; i++) { before += shared_words[i]; }
  let own = shared_words[thread];
  let at = multiply_high(hash(hash(settings[own_sequence].w) ^ position), total);
  if (at >= before && at - before < own) {
    var rest = at - before;
    var i = thread;
    loop {
      let is_kept = key_of(logit(i)) >= threshold;
      let share = select(0u, mass_of(logit(i), largest, unit, temperature), is_kept);
      if (rest < share || i + workgroup_size >= length) { break; }
      rest -= share;
      i += workgroup_size;
    }
    chosen = i;
  }
  workgroupBarrier();
}

// PCG's output permutation over one step of its generator.
fn hash(value: u32) -> u32 {
  let state = value * 747796405u + 2891336453u;
  let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
  return (word >> 22u) ^ word;
}

// floor(a b / 2^32).
fn multiply_high(a: u32, b: u32) -> u32 {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u);
}
