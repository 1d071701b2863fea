// needs: queries cache_rows cache_stores finite_bits
// Attention of one new token to a part of the sequence: see decode_attention.wgsl. From the kernel: the bindings
// `keys`, `values`, `rotations`, `norms`, and
//
//   splits                                      parts of the sequence
//   cache_head_of(key_head)                     which head of the cache that is
//   norms_start()                               first vector of `norms`
//   await_projections(first_head, key_head, has_new, thread)   returns once projected() can be called, for all threads
//   projected(head, channel)                    four channels of q, k or v, with their bias
override heads: u32 = 1;
override key_value_heads: u32 = 1;
override head_size: u32 = 64;
override capacity: u32 = 1;
override window: u32 = 0xffffffff; // keys that the query sees, its own included
override row_lanes: u32 = 8; // a power of two, at least head_size / 8
override merge_lanes: u32 = 8; // lanes that exchange directly: a power of two from row_lanes up
override has_bias: u32 = 0;
override has_norm: u32 = 0;
override norm_epsilon: f32 = 0.00001;

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
struct Entry { key: Row, value: Row }

// Which channels of the values a workgroup takes: those of one of 1, 2 or 4 shares of a head. The number of shares is a
// constant to the compiler.
struct Share { count: u32, index: u32 }

// What a lane takes of each token in a head of the cache: the first of eight channels of the key, and of 8, 4 or 2 of the
// value, a share's.
struct Own { head: u32, key: u32, value: u32, shares: u32 }

// The lane's channels of the queries, and what their codes' offset adds to a score.
struct Asked { channels: Eight, offset: Queries }

// What a lane loads for one turn.
struct Turn { e0: Entry, e1: Entry, e2: Entry, e3: Entry }

// Of the angles by which four channels are rotated.
struct Angles { cosines: vec4<f32>, sines: vec4<f32> }

// Of eight channels.
struct EightAngles { low: Angles, high: Angles }

// Four scores, or four tokens' weights.
struct Scores { s0: Queries, s1: Queries, s2: Queries, s3: Queries }

// Heads of a workgroup: query heads from the first on, which share a key head; `count` are left of it, of which a
// workgroup takes up to QUERIES.
struct Heads { first: u32, key: u32, count: u32, is_first: bool }

fn heads_of(group: u32) -> Heads {
  let shared_by = heads / key_value_heads;
  let groups = (shared_by + QUERIES - 1u) / QUERIES;
  let key_head = group / groups;
  let first_query = (group % groups) * QUERIES;
  return Heads(key_head * shared_by + first_query, key_head, shared_by - first_query, first_query == 0u);
}

// Attention to the tokens of a split, merged over the lanes that exchange directly. Of the values a lane takes its part
// of the channels of a share.
fn attend_tokens(own: Heads, split: u32, share: Share, position: u32, thread: u32) -> Attended {
  let lane = thread % row_lanes;
  let is_lane = lane < head_size / 8u;
  let channel = select(0u, 8u * lane, is_lane);
  let oldest = position + 1u - min(window, position + 1u);
  let chunk = (position + splits - oldest) / splits;
  let start = min(oldest + split * chunk, position + 1u);
  let has_new = start + chunk > position && start <= position;
  // The new token is not in the cache yet.
  let end = min(start + chunk, position);
  let teams = workgroup_size / row_lanes;
  let value_channel = share.index * (head_size / share.count) + channel / share.count;
  let entries = Own(cache_head_of(own.key), channel, value_channel, share.count);
  let first_token = start + thread / row_lanes;
  var even = load_turn(entries, first_token, teams, end);
  var odd = load_turn(entries, first_token + 4u * teams, teams, end);
  var third: Turn;
  if (TURNS_AHEAD == 3u) { third = load_turn(entries, first_token + 8u * teams, teams, end); }
  let angles = EightAngles(angles_at(channel, position), angles_at(channel + 4u, position));
  await_projections(own.first, own.key, has_new, thread);
  let queries = asked(load_queries(own.first, channel, angles, is_lane, thread));
  var state = Attended(Queries(LOWEST), Queries(0.0), Eight());
  if (has_new) {
    let key = new_key(heads + own.key, channel, angles, is_lane, thread);
    let value_head = heads + key_value_heads + own.key;
    let largest = largest_in_row(projected(value_head, channel), projected(value_head, channel + 4u), thread);
    if (thread < row_lanes && is_lane && own.is_first && share.index == 0u) {
      cache_key(entries.head, position, channel / 8u, key);
      cache_value(entries.head, position, channel / 8u, new_value(value_head, channel, 1u, largest));
    }
    let own_score = score(queries, key, thread);
    let value = new_value(value_head, value_channel, share.count, largest);
    if (thread < row_lanes) { state = attended_once(own_score, value); }
  }
  // Turns of four tokens take turns with two or three sets of registers, so that what a turn takes was asked for a turn
  // or two earlier.
  let ahead = 4u * TURNS_AHEAD;
  for (var turn = 0u; start + turn * teams < end; turn += ahead) {
    let token = first_token + turn * teams;
    state = attend_turn(state, queries, even, token, teams, end, thread);
    even = load_turn(entries, token + ahead * teams, teams, end);
    if (start + (turn + 4u) * teams < end) {
      state = attend_turn(state, queries, odd, token + 4u * teams, teams, end, thread);
      odd = load_turn(entries, token + (ahead + 4u) * teams, teams, end);
    }
    if (TURNS_AHEAD == 3u && start + (turn + 8u) * teams < end) {
      state = attend_turn(state, queries, third, token + 8u * teams, teams, end, thread);
      third = load_turn(entries, token + (ahead + 8u) * teams, teams, end);
    }
  }
  state.sums = channels_of(state.sums, share.count);
  return merge_lanes_of(state, thread);
}

// Sums of the channels that a share's lane takes: what lanes exchange of the others would have to be computed.
fn channels_of(sums: Eight, shares: u32) -> Eight {
  let none = Queries(0.0);
  if (shares == 1u) { return sums; }
  if (shares == 2u) { return Eight(sums.c0, sums.c1, sums.c2, sums.c3, none, none, none, none); }
  return Eight(sums.c0, sums.c1, none, none, none, none, none, none);
}

// The tokens of a turn, or nothing past the end; behind a branch, so that the loads stay together.
fn load_turn(own: Own, token: u32, teams: u32, end: u32) -> Turn {
  var turn: Turn;
  if (token < end) {
    turn = Turn(
      load_entry(own, token),
      load_entry(own, min(token + teams, end - 1u)),
      load_entry(own, min(token + 2u * teams, end - 1u)),
      load_entry(own, min(token + 3u * teams, end - 1u)),
    );
  }
  return turn;
}

fn load_entry(own: Own, token: u32) -> Entry {
  let factors = cached_factors(own.head, token);
  return Entry(
    cached_key(own.head, token, own.key, factors),
    cached_value(own.head, token, own.value, own.shares, factors),
  );
}

fn attend_turn(state: Attended, queries: Asked, turn: Turn, token: u32, teams: u32, end: u32, thread: u32) -> Attended {
  let exists = vec4(token) + vec4(0u, 1u, 2u, 3u) * teams < vec4(end);
  let scores = Scores(
    select(Queries(LOWEST), score(queries, turn.e0.key, thread), exists.x),
    select(Queries(LOWEST), score(queries, turn.e1.key, thread), exists.y),
    select(Queries(LOWEST), score(queries, turn.e2.key, thread), exists.z),
    select(Queries(LOWEST), score(queries, turn.e3.key, thread), exists.w),
  );
  return attend(state, scores, exists, turn);
}

// Attention to a single token.
fn attended_once(score: Queries, value: Row) -> Attended {
  let p = Queries(1.0);
  let low = (low_codes(value) - CODE_OFFSET) * row_factor(value);
  let high = (high_codes(value) - CODE_OFFSET) * row_factor(value);
  let sums = Eight(p * low.x, p * low.y, p * low.z, p * low.w, p * high.x, p * high.y, p * high.z, p * high.w);
  return Attended(score, p, sums);
}

// The queries' channels of this lane, scaled so that scores are powers of two; zeros for lanes past the head.
fn load_queries(first_head: u32, channel: u32, angles: EightAngles, is_lane: bool, thread: u32) -> Eight {
  var scale = Queries(select(0.0, LOG2_E / sqrt(f32(head_size)), is_lane));
  if (has_norm == 1u) {
    let squares = squares_at(first_head, channel) + squares_at(first_head, channel + 4u);
    let sum = sum_lanes(select(Queries(0.0), squares, is_lane), thread);
    scale *= inverseSqrt(sum / f32(head_size) + norm_epsilon);
  }
  let low = queries_at(first_head, channel, angles.low);
  let high = queries_at(first_head, channel + 4u, angles.high);
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

// Key of the new token, as it goes into the cache.
fn new_key(head: u32, channel: u32, angles: EightAngles, is_lane: bool, thread: u32) -> Row {
  var factor = 1.0;
  if (has_norm == 1u) {
    let low = projected(head, channel);
    let high = projected(head, channel + 4u);
    let squares = select(0.0, dot(low, low) + dot(high, high), is_lane);
    let sum = query_of(sum_lanes(Queries(squares), thread), 0u);
    factor = inverseSqrt(sum / f32(head_size) + norm_epsilon);
  }
  let low = factor * rotated(head, channel, angles.low, 1u);
  let high = factor * rotated(head, channel + 4u, angles.high, 1u);
  return row_of(low, high, largest_in_row(low, high, thread));
}

// A share's channels of the new token's value, as the cache has them.
fn new_value(head: u32, channel: u32, shares: u32, largest: u32) -> Row {
  let low = projected(head, channel / 4u * 4u);
  if (shares == 1u) { return row_of(low, projected(head, channel + 4u), largest); }
  return row_of(select(low, low.zwzw, channel % 4u != 0u), vec4(0.0), largest);
}

// Bits of the largest magnitude of a row, of which each lane has eight channels; 0 where nobody needs them.
fn largest_in_row(low: vec4<f32>, high: vec4<f32>, thread: u32) -> u32 {
  if (!HAS_FACTORS) { return 0u; }
  var bits = max(largest_bits(low), largest_bits(high));
  for (var distance = 1u; distance < row_lanes; distance *= 2u) {
    bits = max(bits, bitcast<u32>(exchange(bitcast<f32>(bits), thread, distance)));
  }
  return bits;
}

fn angles_at(channel: u32, position: u32) -> Angles {
  let half = head_size / 2u;
  let at = (position * half + channel % half) / 2u;
  let first = rotations[at];
  let second = rotations[at + 1u];
  return Angles(vec4(first.xz, second.xz), vec4(first.yw, second.yw));
}

// Four channels of a head of queries (norm 0) or keys (norm 1), rotated by the angles of its position: channel i forms
// a pair with channel i + head_size / 2. The norm's weight is applied, its factor is not.
fn rotated(head: u32, channel: u32, angles: Angles, norm: u32) -> vec4<f32> {
  let half = head_size / 2u;
  let is_lower = channel < half;
  let partner = select(channel - half, channel + half, is_lower);
  var own_values = projected(head, channel);
  var partner_values = projected(head, partner);
  if (has_norm == 1u) {
    own_values *= norms[norms_start() + (norm * head_size + channel) / 4u];
    partner_values *= norms[norms_start() + (norm * head_size + partner) / 4u];
  }
  return own_values * angles.cosines + partner_values * select(angles.sines, -angles.sines, is_lower);
}

fn asked(q: Eight) -> Asked {
  return Asked(q, -CODE_OFFSET * (q.c0 + q.c1 + q.c2 + q.c3 + q.c4 + q.c5 + q.c6 + q.c7));
}

fn score(queries: Asked, key: Row, thread: u32) -> Queries {
  let q = queries.channels;
  let low = low_codes(key);
  let high = high_codes(key);
  let sum = queries.offset + q.c0 * low.x + q.c1 * low.y + q.c2 * low.z + q.c3 * low.w +
    q.c4 * high.x + q.c5 * high.y + q.c6 * high.z + q.c7 * high.w;
  return sum_lanes(sum, thread) * row_factor(key);
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

// Takes four tokens in. One that doesn't exist has the lowest score and no weight. The score can't tell the weight:
// where no token exists, the lowest is the largest, and comparing would drop a score that is not a number.
fn attend(state: Attended, scores: Scores, exists: vec4<bool>, turn: Turn) -> Attended {
  let largest = max(state.largest, max(max(scores.s0, scores.s1), max(scores.s2, scores.s3)));
  let kept = exp2(state.largest - largest);
  let p = Scores(
    weight_of(scores.s0, largest, exists.x),
    weight_of(scores.s1, largest, exists.y),
    weight_of(scores.s2, largest, exists.z),
    weight_of(scores.s3, largest, exists.w),
  );
  let v = Scores(
    p.s0 * row_factor(turn.e0.value),
    p.s1 * row_factor(turn.e1.value),
    p.s2 * row_factor(turn.e2.value),
    p.s3 * row_factor(turn.e3.value),
  );
  let offset = CODE_OFFSET * ((v.s0 + v.s1) + (v.s2 + v.s3));
  let low0 = low_codes(turn.e0.value);
  let low1 = low_codes(turn.e1.value);
  let low2 = low_codes(turn.e2.value);
  let low3 = low_codes(turn.e3.value);
  let high0 = high_codes(turn.e0.value);
  let high1 = high_codes(turn.e1.value);
  let high2 = high_codes(turn.e2.value);
  let high3 = high_codes(turn.e3.value);
  let sums = state.sums;
  return Attended(
    largest,
    state.total * kept + (p.s0 + p.s1) + (p.s2 + p.s3),
    Eight(
      sums.c0 * kept - offset + v.s0 * low0.x + v.s1 * low1.x + v.s2 * low2.x + v.s3 * low3.x,
      sums.c1 * kept - offset + v.s0 * low0.y + v.s1 * low1.y + v.s2 * low2.y + v.s3 * low3.y,
      sums.c2 * kept - offset + v.s0 * low0.z + v.s1 * low1.z + v.s2 * low2.z + v.s3 * low3.z,
      sums.c3 * kept - offset + v.s0 * low0.w + v.s1 * low1.w + v.s2 * low2.w + v.s3 * low3.w,
      sums.c4 * kept - offset + v.s0 * high0.x + v.s1 * high1.x + v.s2 * high2.x + v.s3 * high3.x,
      sums.c5 * kept - offset + v.s0 * high0.y + v.s1 * high1.y + v.s2 * high2.y + v.s3 * high3.y,
      sums.c6 * kept - offset + v.s0 * high0.z + v.s1 * high1.z + v.s2 * high2.z + v.s3 * high3.z,
      sums.c7 * kept - offset + v.s0 * high0.w + v.s1 * high1.w + v.s2 * high2.w + v.s3 * high3.w,
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
