// Attention of one new token, split over the sequence: rotates its queries and its key, appends key and value to the
// cache, and sums over a part of the cached tokens in each workgroup:
//
//   partial[s, h] = sum over tokens t of split s of exp(q_h k_t / sqrt(head_size) - max) v_t,  with max and sum of exp
//
// which the kernel that reads it combines (GemvInput "attention").
//
// Bindings (D = head_size, K = key_value_heads, C = capacity, S = splits):
//   0 qkv        vec4<f32> [(heads + 2 K) D / 4]   q rows, k rows, v rows, as the fused linear layer leaves them
//   1 rotations  vec4<f32> [C, D / 4]      cos, sin, cos, sin of position x two frequencies
//   2 keys       vec4<u32> [K, C, D / 8]   8 f16 each, rotated
//   3 values     vec4<u32> [K, C, D / 8]
//   4 sequence   u32                       word 0: position of the token
//   5 partials   f32                       sums [S, heads D], then max and sum of exp as vec2 [S, heads]
//   6 bias       vec4<f32> [(heads + 2 K) D / 4]   added to qkv where has_bias
//   7 norms      vec4<f32> [2, D / 4]      of queries and of keys where has_norm
//
// Mapping: workgroup.x is a group of up to QUERIES query heads that share a key head, workgroup.y a split. A key's
// channels are spread over row_lanes lanes, 8 each (16 bytes); the teams of row_lanes lanes in a workgroup take tokens
// in turn, two a step, each with a running maximum of its own, so nothing waits for a barrier until the end. The last
// split also takes the new token, straight from registers. Where the asynchrony is: keys and values of a step are
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
@group(0) @binding(4) var<storage, read> sequence: array<u32>;
@group(0) @binding(5) var<storage, read_write> partials: array<f32>;
@group(0) @binding(6) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> norms: array<vec4<f32>>;

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
struct Step { first: Entry, second: Entry }

var<workgroup> merged_largest: array<Queries, workgroup_size / merge_lanes>;
var<workgroup> merged_total: array<Queries, workgroup_size / merge_lanes>;
var<workgroup> merged_sums: array<Queries, workgroup_size / merge_lanes * row_lanes * 8>;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let position = sequence[0];
  let shared_by = heads / key_value_heads;
  let groups = (shared_by + QUERIES - 1u) / QUERIES;
  let key_head = workgroup.x / groups;
  let first_query = (workgroup.x % groups) * QUERIES;
  let first_head = key_head * shared_by + first_query;
  let lane = thread % row_lanes;
  let is_lane = lane < head_size / 8u;
  let channel = select(0u, 8u * lane, is_lane);
  let oldest = position + 1u - min(window, position + 1u);
  let chunk = (position - oldest + splits - 1u) / splits;
  let start = min(oldest + workgroup.y * chunk, position);
  let end = min(start + chunk, position);
  let teams = workgroup_size / row_lanes;
  let first_entry = key_head * capacity * (head_size / 8u) + channel / 8u;
  var next = load_step(first_entry, start + thread / row_lanes, teams, end);
  let takes_new = workgroup.y == splits - 1u;
  var entry: Entry;
  if (takes_new) { entry = new_entry(key_head, channel, position, is_lane, thread); }
  let queries = load_queries(first_head, channel, position, is_lane, thread);
  var state = Attended(Queries(LOWEST), Queries(0.0), Eight());
  for (var first = start; first < end; first += 2u * teams) {
    let token = first + thread / row_lanes;
    let now = next;
    next = load_step(first_entry, token + 2u * teams, teams, end);
    let score0 = select(Queries(LOWEST), score(queries, now.first.key, thread), token < end);
    let score1 = select(Queries(LOWEST), score(queries, now.second.key, thread), token + teams < end);
    state = attend(state, score0, score1, now.first.value, now.second.value);
  }
  if (takes_new) {
    let is_first_team = thread < row_lanes;
    if (is_first_team && is_lane && first_query == 0u) {
      keys[first_entry + position * (head_size / 8u)] = entry.key;
      values[first_entry + position * (head_size / 8u)] = entry.value;
    }
    let own = select(Queries(LOWEST), score(queries, entry.key, thread), is_first_team);
    state = attend(state, own, Queries(LOWEST), entry.value, entry.value);
  }
  state = merge_lanes_of(state, thread);
  write_merged(state, first_head, shared_by - first_query, workgroup.y, thread);
}

// The tokens of a step, or nothing past the end; behind a branch, so that the loads stay together.
fn load_step(first_entry: u32, token: u32, teams: u32, end: u32) -> Step {
  var step: Step;
  if (token < end) {
    let at = first_entry + token * (head_size / 8u);
    let second = first_entry + min(token + teams, end - 1u) * (head_size / 8u);
    step = Step(Entry(keys[at], values[at]), Entry(keys[second], values[second]));
  }
  return step;
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
  if (has_bias == 1u) { return qkv[at] + bias[at]; }
  return qkv[at];
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

// Takes two tokens in.
fn attend(state: Attended, score0: Queries, score1: Queries, value0: vec4<u32>, value1: vec4<u32>) -> Attended {
  let largest = max(state.largest, max(score0, score1));
  let kept = exp2(state.largest - largest);
  // A token that isn't there has the lowest score; where all are, nothing may count.
  let p0 = select(Queries(0.0), exp2(score0 - largest), score0 > Queries(LOWEST));
  let p1 = select(Queries(0.0), exp2(score1 - largest), score1 > Queries(LOWEST));
  let low0 = low_half(value0);
  let high0 = high_half(value0);
  let low1 = low_half(value1);
  let high1 = high_half(value1);
  let sums = state.sums;
  return Attended(
    largest,
    state.total * kept + p0 + p1,
    Eight(
      sums.c0 * kept + p0 * low0.x + p1 * low1.x,
      sums.c1 * kept + p0 * low0.y + p1 * low1.y,
      sums.c2 * kept + p0 * low0.z + p1 * low1.z,
      sums.c3 * kept + p0 * low0.w + p1 * low1.w,
      sums.c4 * kept + p0 * high0.x + p1 * high1.x,
      sums.c5 * kept + p0 * high0.y + p1 * high1.y,
      sums.c6 * kept + p0 * high0.z + p1 * high1.z,
      sums.c7 * kept + p0 * high0.w + p1 * high1.w,
    ),
  );
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
  let teams = workgroup_size / merge_lanes;
  let team = thread / merge_lanes;
  let width = row_lanes * 8u;
  if (thread % merge_lanes < row_lanes) {
    let at = team * width + 8u * (thread % merge_lanes);
    merged_sums[at] = state.sums.c0;
    merged_sums[at + 1u] = state.sums.c1;
    merged_sums[at + 2u] = state.sums.c2;
    merged_sums[at + 3u] = state.sums.c3;
    merged_sums[at + 4u] = state.sums.c4;
    merged_sums[at + 5u] = state.sums.c5;
    merged_sums[at + 6u] = state.sums.c6;
    merged_sums[at + 7u] = state.sums.c7;
  }
  if (thread % merge_lanes == 0u) {
    merged_largest[team] = state.largest;
    merged_total[team] = state.total;
  }
  workgroupBarrier();
  var largest = Queries(LOWEST);
  for (var i = 0u; i < teams; i++) { largest = max(largest, merged_largest[i]); }
  for (var channel = thread; channel < head_size; channel += workgroup_size) {
    var sum = Queries(0.0);
    for (var i = 0u; i < teams; i++) { sum += exp2(merged_largest[i] - largest) * merged_sums[i * width + channel]; }
    for (var i = 0u; i < min(queries, QUERIES); i++) {
      partials[(split * heads + first_head + i) * head_size + channel] = query_of(sum, i);
    }
  }
  if (thread < min(queries, QUERIES)) {
    var total = Queries(0.0);
    for (var i = 0u; i < teams; i++) { total += exp2(merged_largest[i] - largest) * merged_total[i]; }
    let at = splits * heads * head_size + 2u * (split * heads + first_head + thread);
    partials[at] = LN_2 * query_of(largest, thread);
    partials[at + 1u] = query_of(total, thread);
  }
}
