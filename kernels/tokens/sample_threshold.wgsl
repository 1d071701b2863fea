// needs: sampling
// The least logit that a draw keeps, for each of some sequences: of the top_k most likely tokens, the fewest whose
// probability reaches top_p. Tokens with the logit of the last one that is kept are kept too.
//
// Bindings: settings and selection of parts/sampling.wgsl, whose bins are counted before and 0 after, and
//   0 logits  f32 [sequences, length]
//
// Mapping: a workgroup a sequence, its index in z, a thread a bin. The bin of the last token that is kept follows from
// the bins; the token itself from a radix selection, 8 bits a pass, among those of that bin, which are brought into
// workgroup memory where it holds them. Thread t of a sum is what lies t bins, or digits, below the best logit.
override length: u32 = 1;

@group(0) @binding(0) var<storage, read> logits: array<f32>;

const LISTED = 2048u;
const DIGITS = 256u;
const NOWHERE = 0xffffffffu;

var<workgroup> reached: array<f32, bins>;
var<workgroup> digits: array<atomic<u32>, DIGITS>;
var<workgroup> listed: array<f32, LISTED>;
var<workgroup> list_length: atomic<u32>;
var<workgroup> nearest: atomic<u32>;
var<workgroup> farthest: atomic<u32>;
var<workgroup> place: atomic<u32>;
var<workgroup> found: vec3<u32>;

// Of the workgroup's sequence.
struct Own {
  settings: vec4<u32>,
  first_logit: u32,
  best: f32,
}

// The tokens of a bin whose keys reach `least`: how many, and their least and greatest distance from the best key.
struct Listing {
  bin: u32,
  least: u32,
  count: u32,
  nearest: u32,
  farthest: u32,
}

@compute @workgroup_size(bins)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first = workgroup.z * selection_words();
  if (thread == 0u) { found = vec3(bitcast<u32>(best_logit(workgroup.z))); }
  let best = bitcast<f32>(workgroupUniformLoad(&found).x);
  let own = Own(settings[workgroup.z], workgroup.z * length, best);
  var threshold = 0u;
  if (has_top_k(own.settings) || has_top_p(own.settings)) {
    let count = f32(atomicExchange(&selection[first + 2u + thread], 0u));
    let mass = f32(atomicExchange(&selection[first + 2u + bins + thread], 0u)) * exp(-bin_start(thread));
    threshold = threshold_of(own, count, mass, thread);
  }
  if (thread == 0u) { atomicStore(&selection[first + 1u], threshold); }
}

fn threshold_of(own: Own, count: f32, mass: f32, thread: u32) -> u32 {
  var threshold = 0u;
  var last_bin = bins;
  var last_mass = 0.0;
  if (has_top_k(own.settings)) {
    let top_k = f32(own.settings.z);
    sum_threads(count, thread);
    last_bin = min(find_place(count, top_k, thread), bins);
    if (last_bin < bins) {
      let missing = top_k - before(last_bin);
      let listing = list_bin(own, last_bin, 0u, thread);
      threshold = select_key(own, listing, missing, false, thread);
      last_mass = listed_mass(own, listing, threshold, thread);
    }
  }
  if (has_top_p(own.settings)) {
    sum_threads(mass, thread);
    let wanted = bitcast<f32>(own.settings.y) * (before(last_bin) + last_mass);
    // By rounding the sum of a bin's scan may lie above the last one.
    let bin = min(find_place(mass, wanted, thread), last_bin);
    if (bin < bins) {
      let missing = max(1.0, (wanted - before(bin)) * exp(bin_start(bin)));
      threshold = select_key(own, list_bin(own, bin, threshold, thread), missing, true, thread);
    }
  }
  return threshold;
}

// Leaves in `reached` the sum of the threads up to each one.
fn sum_threads(own: f32, thread: u32) {
  workgroupBarrier();
  reached[thread] = own;
  for (var distance = 1u; distance < bins; distance *= 2u) {
    workgroupBarrier();
    var sum = reached[thread];
    if (thread >= distance) { sum += reached[thread - distance]; }
    workgroupBarrier();
    reached[thread] = sum;
  }
  workgroupBarrier();
}

fn before(thread: u32) -> f32 {
  if (thread == 0u) { return 0.0; }
  return reached[thread - 1u];
}

// After sum_threads: the first thread with something of its own that reaches `wanted`, NOWHERE where none does.
fn find_place(own: f32, wanted: f32, thread: u32) -> u32 {
  if (thread == 0u) { atomicStore(&place, NOWHERE); }
  workgroupBarrier();
  if (own > 0.0 && reached[thread] >= wanted) { atomicMin(&place, thread); }
  workgroupBarrier();
  if (thread == 0u) { found = vec3(atomicLoad(&place)); }
  return workgroupUniformLoad(&found).x;
}

fn is_in(own: Own, bin: u32, least: u32, value: f32) -> bool {
  return bin_of(depth_of(value, own.best, own.settings)) == bin && key_of(value) >= least;
}

fn rank_of(own: Own, value: f32) -> u32 {
  return key_of(own.best) - key_of(value);
}

fn list_bin(own: Own, bin: u32, least: u32, thread: u32) -> Listing {
  if (thread == 0u) {
    atomicStore(&list_length, 0u);
    atomicStore(&nearest, NOWHERE);
    atomicStore(&farthest, 0u);
  }
  workgroupBarrier();
  // Four loads are on their way at a time.
  for (var i = thread; i < length; i += 4u * bins) {
    let values = vec4(logit(own, i), logit(own, i + bins), logit(own, i + 2u * bins), logit(own, i + 3u * bins));
    list_value(own, bin, least, i, values.x);
    list_value(own, bin, least, i + bins, values.y);
    list_value(own, bin, least, i + 2u * bins, values.z);
    list_value(own, bin, least, i + 3u * bins, values.w);
  }
  workgroupBarrier();
  if (thread == 0u) { found = vec3(atomicLoad(&list_length), atomicLoad(&nearest), atomicLoad(&farthest)); }
  let all = workgroupUniformLoad(&found);
  return Listing(bin, least, all.x, all.y, all.z);
}

fn logit(own: Own, i: u32) -> f32 {
  return logits[own.first_logit + min(i, length - 1u)];
}

fn list_value(own: Own, bin: u32, least: u32, i: u32, value: f32) {
  if (i >= length || !is_in(own, bin, least, value)) { return; }
  let at = atomicAdd(&list_length, 1u);
  if (at < LISTED) { listed[at] = value; }
  atomicMin(&nearest, rank_of(own, value));
  atomicMax(&farthest, rank_of(own, value));
}

// What select_key and listed_mass walk: the list, or all logits where it has no room.
fn walk_length(listing: Listing) -> u32 {
  return select(length, listing.count, listing.count <= LISTED);
}

fn walked(own: Own, listing: Listing, i: u32) -> f32 {
  if (listing.count <= LISTED) { return listed[i]; }
  return logit(own, i);
}

// Key of the token at which those of the list, from the most likely on, reach `wanted`, in tokens or in mass; that of
// the last one where they don't.
fn select_key(own: Own, listing: Listing, wanted: f32, by_mass: bool, thread: u32) -> u32 {
  let bits = 32u - countLeadingZeros(listing.farthest - listing.nearest);
  var prefix = 0u;
  var missing = wanted;
  for (var passes = (bits + 7u) / 8u; passes > 0u; passes--) {
    let shift = 8u * (passes - 1u);
    if (thread < DIGITS) { atomicStore(&digits[thread], 0u); }
    workgroupBarrier();
    for (var i = thread; i < walk_length(listing); i += bins) {
      let value = walked(own, listing, i);
      let rank = (rank_of(own, value) - listing.nearest) >> shift;
      if (is_in(own, listing.bin, listing.least, value) && (rank >> 8u) == prefix) {
        let mass = mass_of(depth_of(value, own.best, own.settings));
        atomicAdd(&digits[rank % DIGITS], select(1u, mass, by_mass));
      }
    }
    workgroupBarrier();
    var amount = 0.0;
    if (thread < DIGITS) { amount = f32(atomicLoad(&digits[thread])); }
    sum_threads(amount, thread);
    let digit = find_place(amount, missing, thread);
    if (digit == NOWHERE) { return key_of(own.best) - listing.farthest; }
    missing -= before(digit);
    prefix = prefix * DIGITS + digit;
  }
  return key_of(own.best) - listing.nearest - prefix;
}

// Probability of those of the list whose keys reach `least`, in the unit of the first bin's masses.
fn listed_mass(own: Own, listing: Listing, least: u32, thread: u32) -> f32 {
  var sum = 0u;
  for (var i = thread; i < walk_length(listing); i += bins) {
    let value = walked(own, listing, i);
    if (is_in(own, listing.bin, least, value)) { sum += mass_of(depth_of(value, own.best, own.settings)); }
  }
  sum_threads(f32(sum), thread);
  return before(bins) * exp(-bin_start(listing.bin));
}
