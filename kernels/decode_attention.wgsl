// Attention of one new token for each of some sequences, split over the sequence: rotates its queries and its key, appends
// key and value to the cache, and sums over a part of the cached tokens in each workgroup:
//
//   partial[s, h] = sum over tokens t of split s of exp(q_h k_t / sqrt(head_size) - max) v_t,  with max and sum of exp
//
// which the kernel that reads it combines (GemvInput "attention").
//
// Bindings (D = head_size, K = key_value_heads, C = capacity, S = splits, T = new tokens):
//   0 qkv        vec4<f32> [T, (heads + 2 K) D / 4]   q rows, k rows, v rows, as the linear layer leaves them
//   1 rotations  vec4<f32> [C, D / 4]      cos, sin, cos, sin of position x two frequencies
//   2 keys       vec4<u32> [sequences, K, C, D / 8]   8 f16 each, rotated
//   3 values     vec4<u32> [sequences, K, C, D / 8]
//   4 sequence   vec2<u32> [T]             position of the token, index of its sequence in the cache
//   5 partials   f32 [T, ...]              sums [S, heads D], then max and sum of exp as vec2 [S, heads]
//   6 bias       vec4<f32> [(heads + 2 K) D / 4]   added to qkv where has_bias
//   7 norms      vec4<f32> [2, D / 4]      of queries and of keys where has_norm
//
// Mapping: workgroup.x is a group of up to QUERIES query heads that share a key head, workgroup.y a split, workgroup.z the
// new token. A key's channels are spread over row_lanes lanes, 8 each (16 bytes); the teams of row_lanes lanes in a workgroup take tokens
// in turn, four a step, each with a running maximum of its own, so nothing waits for a barrier until the end. The last
// split also takes the new token, whose key and value come from registers. Where the asynchrony is: keys and values of a step are
// asked for together, a step ahead; those of the first step before the queries are read and rotated.
override heads: u32 = 1;
override key_value_heads: u32 = 1;
override head_size: u32 = 64;
override capacity: u32 = 1;
override splits: u32 = 1;
override window: u32 = 0xffffffff; // keys that the query sees, its own included
override row_lanes: u32 = 8; // a power of two, at least head_size / 8
override merge_lanes: u32 = 8; // lanes that exchange directly: a power of two from row_lanes up
override workgroup_size: u32 = 64;
override has_bias: u32 = 0;
override has_norm: u32 = 0;
override norm_epsilon: f32 = 0.00001;

@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> rotations: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> keys: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> values: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> sequence: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> partials: array<f32>;
@group(0) @binding(6) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> norms: array<vec4<f32>>;

// Index of the workgroup's new token.
var<private> own_token: u32;

const LOG2_E = 1.4426950408889634;
const LN_2 = 0.6931471805599453;
const LOWEST = -1e30;

// 4 channels of the queries.
struct Four { c0: Queries, c1: Queries, c2: Queries, c3: Queries }

// 8 channels of the queries.
struct Eight { c0: Queries, c1: Queries, c2: Queries, c3: Queries, c4: Queries, c5: Queries, c6: Queries, c7: Queries }

// Running softmax over some tokens, in powers of two.
struct Attended { largest: Queries, total: Queries, sums: Eight }

// 8 channels of a key and its value.
struct Entry { key: vec4<u32>, value: vec4<u32> }

// What a lane loads for one step.
struct Step { e0: Entry, e1: Entry, e2: Entry, e3: Entry }

// Four scores, or four tokens' weights.
struct Scores { s0: Queries, s1: Queries, s2: Queries, s3: Queries }

var<workgroup> merged_largest: array<Queries, workgroup_size / merge_lanes>;
var<workgroup> merged_total: array<Queries, workgroup_size / merge_lanes>;
var<workgroup> merged_sums: array<Queries, workgroup_size / merge_lanes * row_lanes * 8>;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  own_token = workgroup.z;
  let position = sequence[workgroup.z].x;
  let shared_by = heads / key_value_heads;
  let groups = (shared_by + QUERIES - 1u) / QUERIES;
  let key_head = workgroup.x / groups;
  let first_query = (workgroup.x % groups) * QUERIES;
  let first_head = key_head * shared_by + first_query;
  let lane = thread % row_lanes;
  let is_lane = lane < head_size / 8u;
  let channel = select(0u, 8u * lane, is_lane);
  let oldest = position + 1u - min(window, position + 1u);
  let chunk = (position + splits - oldest) / splits;
  let start = min(oldest + workgroup.y * chunk, position + 1u);
  let end = min(start + chunk, position + 1u);
  let teams = workgroup_size / row_lanes;
  let cache_head = sequence[workgroup.z].y * key_value_heads + key_head;
  let first_entry = cache_head * capacity * (head_size / 8u) + channel / 8u;
  // The new token is not in the cache yet; where it would be read, an older one is.
  let newest = max(position, 1u) - 1u;
  var next = load_step(first_entry, start + thread / row_lanes, teams, end, newest);
  var entry: Entry;
  if (end == position + 1u && start < end) {
    entry = new_entry(key_head, channel, position, is_lane, thread);
    if (thread < row_lanes && is_lane && first_query == 0u) {
      keys[first_entry + position * (head_size / 8u)] = entry.key;
      values[first_entry + position * (head_size / 8u)] = entry.value;
    }
  }
  let queries = load_queries(first_head, channel, position, is_lane, thread);
  var state = Attended(Queries(LOWEST), Queries(0.0), Eight());
  for (var first = start; first < end; first += 4u * teams) {
    let token = first + thread / row_lanes;
    let now = Step(
      choose_entry(next.e0, entry, token >= position),
      choose_entry(next.e1, entry, token + teams >= position),
      choose_entry(next.e2, entry, token + 2u * teams >= position),
      choose_entry(next.e3, entry, token + 3u * teams >= position),
    );
    next = load_step(first_entry, token + 4u * teams, teams, end, newest);
    let exists = vec4(token) + vec4(0u, 1u, 2u, 3u) * teams < vec4(end);
    let scores = Scores(
      select(Queries(LOWEST), score(queries, now.e0.key, thread), exists.x),
      select(Queries(LOWEST), score(queries, now.e1.key, thread), exists.y),
      select(Queries(LOWEST), score(queries, now.e2.key, thread), exists.z),
      select(Queries(LOWEST), score(queries, now.e3.key, thread), exists.w),
    );
    state = attend(state, scores, exists, now);
  }
  state = merge_lanes_of(state, thread);
  write_merged(state, first_head, shared_by - first_query, workgroup.y, thread);
}

// The tokens of a step, or nothing past the end; behind a branch, so that the loads stay together.
fn load_step(first_entry: u32, token: u32, teams: u32, end: u32, newest: u32) -> Step {
  var step: Step;
  if (token < end) {
    let row = head_size / 8u;
    let at0 = first_entry + min(token, newest) * row;
    let at1 = first_entry + min(min(token + teams, end - 1u), newest) * row;
    let at2 = first_entry + min(min(token + 2u * teams, end - 1u), newest) * row;
    let at3 = first_entry + min(min(token + 3u * teams, end - 1u), newest) * row;
    step = Step(
      Entry(keys[at0], values[at0]),
      Entry(keys[at1], values[at1]),
      Entry(keys[at2], values[at2]),
      Entry(keys[at3], values[at3]),
    );
  }
  return step;
}

// The new token for itself and, with no weight, for those past the end: what has no weight is then a token that exists,
// or zeros, and 0 times it is no NaN of its own.
fn choose_entry(loaded: Entry, own: Entry, is_own: bool) -> Entry {
  return Entry(select(loaded.key, own.key, is_own), select(loaded.value, own.value, is_own));
}

// The queries' channels of this lane, scaled so that scores are powers of two; zeros for lanes past the head.
fn load_queries(first_head: u32, channel: u32, position: u32, is_lane: bool, thread: u32) -> Eight {
  var scale = Queries(select(0.0, LOG2_E / sqrt(f32(head_size)), is_lane));
  if (has_norm == 1u) {
    let squares = squares_at(first_head, channel) + squares_at(first_head, channel + 4u);
    let sum = sum_lanes(select(Queries(0.0), squares, is_lane), thread);
    scale *= inverseSqrt(sum / f32(head_size) + norm_epsilon);
  }
  let low = queries_at(first_head, channel, position);
  let high = queries_at(first_head, channel + 4u, position);
  return Eight(
    low.c0 * scale,
    low.c1 * scale,
    low.c2 * scale,
    low.c3 * scale,
    high.c0 * scale,
    high.c1 * scale,
    high.c2 * scale,
    high.c3 * scale,
  );
}

// Key and value of the new token, as they go into the cache.
fn new_entry(key_head: u32, channel: u32, position: u32, is_lane: bool, thread: u32) -> Entry {
  let head = heads + key_head;
  var factor = 1.0;
  if (has_norm == 1u) {
    let low = projected(head, channel);
    let high = projected(head, channel + 4u);
    let squares = select(0.0, dot(low, low) + dot(high, high), is_lane);
    let sum = query_of(sum_lanes(Queries(squares), thread), 0u);
    factor = inverseSqrt(sum / f32(head_size) + norm_epsilon);
  }
  let key_low = factor * rotated(head, channel, position, 1u);
  let key_high = factor * rotated(head, channel + 4u, position, 1u);
  return Entry(
    pack_halves(key_low, key_high),
    pack_halves(projected(head + key_value_heads, channel), projected(head + key_value_heads, channel + 4u)),
  );
}

fn pack_halves(low: vec4<f32>, high: vec4<f32>) -> vec4<u32> {
  return vec4(pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw));
}

// Four channels of a head with their bias.
fn projected(head: u32, channel: u32) -> vec4<f32> {
  let at = (head * head_size + channel) / 4u;
  let value = qkv[own_token * (heads + 2u * key_value_heads) * head_size / 4u + at];
  if (has_bias == 1u) { return value + bias[at]; }
  return value;
}

// Four channels of a head of queries (norm 0) or keys (norm 1), rotated by the token's position: channel i forms a pair
// with channel i + head_size / 2. The norm's weight is applied, its factor is not.
fn rotated(head: u32, channel: u32, position: u32, norm: u32) -> vec4<f32> {
  let half = head_size / 2u;
  let is_lower = channel < half;
  let partner = select(channel - half, channel + half, is_lower);
  var own_values = projected(head, channel);
  var partner_values = projected(head, partner);
  if (has_norm == 1u) {
    own_values *= norms[(norm * head_size + channel) / 4u];
    partner_values *= norms[(norm * head_size + partner) / 4u];
  }
  let at = (position * half + channel % half) / 2u;
  let first = rotations[at];
  let second = rotations[at + 1u];
  let sines = vec4(first.yw, second.yw);
  return own_values * vec4(first.xz, second.xz) + partner_values * select(sines, -sines, is_lower);
}

fn low_half(words: vec4<u32>) -> vec4<f32> {
  return vec4(unpack2x16float(words.x), unpack2x16float(words.y));
}

fn high_half(words: vec4<u32>) -> vec4<f32> {
  return vec4(unpack2x16float(words.z), unpack2x16float(words.w));
}

fn score(q: Eight, key: vec4<u32>, thread: u32) -> Queries {
  let low = low_half(key);
  let high = high_half(key);
  let sum = q.c0 * low.x + q.c1 * low.y + q.c2 * low.z + q.c3 * low.w +
    q.c4 * high.x + q.c5 * high.y + q.c6 * high.z + q.c7 * high.w;
  return sum_lanes(sum, thread);
}

fn sum_lanes(value: Queries, thread: u32) -> Queries {
  var sum = value;
  if (row_lanes > 1u) { sum += exchange_queries(sum, thread, 1u); }
  if (row_lanes > 2u) { sum += exchange_queries(sum, thread, 2u); }
  if (row_lanes > 4u) { sum += exchange_queries(sum, thread, 4u); }
  if (row_lanes > 8u) { sum += exchange_queries(sum, thread, 8u); }
  if (row_lanes > 16u) { sum += exchange_queries(sum, thread, 16u); }
  return sum;
}

// Takes four tokens in. One that doesn't exist has the lowest score and no weight. The score can't tell the weight: where
// no token exists, the lowest is the largest, and comparing would drop a score that is not a number.
fn attend(state: Attended, scores: Scores, exists: vec4<bool>, step: Step) -> Attended {
  let largest = max(state.largest, max(max(scores.s0, scores.s1), max(scores.s2, scores.s3)));
  let kept = exp2(state.largest - largest);
  let p = Scores(
    weight_of(scores.s0, largest, exists.x),
    weight_of(scores.s1, largest, exists.y),
    weight_of(scores.s2, largest, exists.z),
    weight_of(scores.s3, largest, exists.w),
  );
  let low0 = low_half(step.e0.value);
  let low1 = low_half(step.e1.value);
  let low2 = low_half(step.e2.value);
  let low3 = low_half(step.e3.value);
  let high0 = high_half(step.e0.value);
  let high1 = high_half(step.e1.value);
  let high2 = high_half(step.e2.value);
  let high3 = high_half(step.e3.value);
  let sums = state.sums;
  return Attended(
    largest,
    state.total * kept + (p.s0 + p.s1) + (p.s2 + p.s3),
    Eight(
      sums.c0 * kept + p.s0 * low0.x + p.s1 * low1.x + p.s2 * low2.x + p.s3 * low3.x,
      sums.c1 * kept + p.s0 * low0.y + p.s1 * low1.y + p.s2 * low2.y + p.s3 * low3.y,
      sums.c2 * kept + p.s0 * low0.z + p.s1 * low1.z + p.s2 * low2.z + p.s3 * low3.z,
      sums.c3 * kept + p.s0 * low0.w + p.s1 * low1.w + p.s2 * low2.w + p.s3 * low3.w,
      sums.c4 * kept + p.s0 * high0.x + p.s1 * high1.x + p.s2 * high2.x + p.s3 * high3.x,
      sums.c5 * kept + p.s0 * high0.y + p.s1 * high1.y + p.s2 * high2.y + p.s3 * high3.y,
      sums.c6 * kept + p.s0 * high0.z + p.s1 * high1.z + p.s2 * high2.z + p.s3 * high3.z,
      sums.c7 * kept + p.s0 * high0.w + p.s1 * high1.w + p.s2 * high2.w + p.s3 * high3.w,
    ),
  );
}

fn weight_of(score: Queries, largest: Queries, exists: bool) -> Queries {
  return select(Queries(0.0), exp2(score - largest), exists);
}

// Merges the teams whose lanes exchange directly.
fn merge_lanes_of(state: Attended, thread: u32) -> Attended {
  var merged = state;
  if (merge_lanes > row_lanes) { merged = merge_with(merged, thread, row_lanes); }
  if (merge_lanes > 2u * row_lanes) { merged = merge_with(merged, thread, 2u * row_lanes); }
  if (merge_lanes > 4u * row_lanes) { merged = merge_with(merged, thread, 4u * row_lanes); }
  return merged;
}

fn merge_with(state: Attended, thread: u32, distance: u32) -> Attended {
  let largest = max(state.largest, exchange_queries(state.largest, thread, distance));
  let kept = exp2(state.largest - largest);
  let sums = state.sums;
  return Attended(
    largest,
    sum_pair(state.total * kept, thread, distance),
    Eight(
      sum_pair(sums.c0 * kept, thread, distance),
      sum_pair(sums.c1 * kept, thread, distance),
      sum_pair(sums.c2 * kept, thread, distance),
      sum_pair(sums.c3 * kept, thread, distance),
      sum_pair(sums.c4 * kept, thread, distance),
      sum_pair(sums.c5 * kept, thread, distance),
      sum_pair(sums.c6 * kept, thread, distance),
      sum_pair(sums.c7 * kept, thread, distance),
    ),
  );
}

fn sum_pair(value: Queries, thread: u32, distance: u32) -> Queries {
  return value + exchange_queries(value, thread, distance);
}

// Merges what is left through workgroup memory and writes the split's partial result.
fn write_merged(state: Attended, first_head: u32, queries: u32, split: u32, thread: u32) {
  let first_partial = own_token * splits * heads * (head_size + 2u);
  let teams = workgroup_size / merge_lanes;
  let team = thread / merge_lanes;
  if (thread % merge_lanes == 0u) { merged_largest[team] = state.largest; }
  workgroupBarrier();
  var largest = Queries(LOWEST);
  for (var i = 0u; i < teams; i++) { largest = max(largest, merged_largest[i]); }
  let kept = exp2(state.largest - largest);
  let width = row_lanes * 8u;
  if (thread % merge_lanes == 0u) { merged_total[team] = state.total * kept; }
  if (thread % merge_lanes < row_lanes) {
    // Channel by channel, so that neighbouring lanes write neighbouring words.
    let at = team * width + thread % merge_lanes;
    merged_sums[at] = state.sums.c0 * kept;
    merged_sums[at + row_lanes] = state.sums.c1 * kept;
    merged_sums[at + 2u * row_lanes] = state.sums.c2 * kept;
    merged_sums[at + 3u * row_lanes] = state.sums.c3 * kept;
    merged_sums[at + 4u * row_lanes] = state.sums.c4 * kept;
    merged_sums[at + 5u * row_lanes] = state.sums.c5 * kept;
    merged_sums[at + 6u * row_lanes] = state.sums.c6 * kept;
    merged_sums[at + 7u * row_lanes] = state.sums.c7 * kept;
  }
  workgroupBarrier();
  for (var channel = thread; channel < head_size; channel += workgroup_size) {
    let at = channel % 8u * row_lanes + channel / 8u;
    var sum = Queries(0.0);
    for (var i = 0u; i < teams; i++) { sum += merged_sums[i * width + at]; }
    for (var i = 0u; i < min(queries, QUERIES); i++) {
      partials[first_partial + (split * heads + first_head + i) * head_size + channel] = query_of(sum, i);
    }
  }
  if (thread < min(queries, QUERIES)) {
    var total = Queries(0.0);
    for (var i = 0u; i < teams; i++) { total += merged_total[i]; }
    let at = first_partial + splits * heads * head_size + 2u * (split * heads + first_head + thread);
    partials[at] = LN_2 * query_of(largest, thread);
    partials[at + 1u] = query_of(total, thread);
  }
}
