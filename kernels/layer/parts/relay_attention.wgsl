// needs: relay reduce_splits attend queries_1
// Attention of decode_layer.wgsl: a workgroup takes a part of a head, awaits the head's projections, which others hand
// over, and hands over its sums. Of a short sequence a part is some channels of the values, a share: the workgroups of a
// head make the same scores, which is faster than to wait for each other once more. Of a longer sequence it is a part of
// the positions; workgroups then merge the parts of some channels each.
override head_shares: u32 = 1; // 1, 2 or 4: shares of a head whose sequence isn't split, each of whole groups

// Parts of the attention: those of all heads are shared out among the workgroups. Heads that share keys are taken one
// by one: arithmetic takes longer than reading keys again, which come from the cache.
fn attend_parts(workgroup: u32, position: u32, thread: u32) {
  let parts = heads * select(splits, head_shares, splits == 1u);
  for (var part = workgroup; part < parts; part += workgroups) {
    if (splits == 1u) {
      let head = part / head_shares;
      let share = Share(head_shares, part % head_shares);
      let state = attend_tokens(heads_of(head), 0u, share, position, thread);
      keep_share(state, thread);
      workgroupBarrier();
      hand_over_share(part, thread);
    } else {
      attend_split(part % heads, part / heads, position, thread);
      workgroupBarrier();
    }
  }
}

// Groups of 16 channels are where sums are kept as they are when they are handed over: quarters, of four channels each.
fn share_quarters() -> u32 {
  return head_size / 4u / head_shares;
}

fn keep_share(state: Attended, thread: u32) {
  let team_index = thread / merge_lanes;
  let lane = thread % merge_lanes;
  if (lane == 0u) {
    merged_largest[team_index] = LN_2 * state.largest;
    merged_total[team_index] = state.total;
  }
  if (lane < head_size / 8u) {
    let first = team_index * share_quarters();
    let channel = 8u / head_shares * lane;
    let sums = state.sums;
    keep_sum(first, channel, sums.c0);
    keep_sum(first, channel + 1u, sums.c1);
    if (head_shares < 4u) {
      keep_sum(first, channel + 2u, sums.c2);
      keep_sum(first, channel + 3u, sums.c3);
    }
    if (head_shares < 2u) {
      keep_sum(first, channel + 4u, sums.c4);
      keep_sum(first, channel + 5u, sums.c5);
      keep_sum(first, channel + 6u, sums.c6);
      keep_sum(first, channel + 7u, sums.c7);
    }
  }
}

fn keep_sum(first: u32, channel: u32, sum: f32) {
  cell_hi[first + channel / 16u * 4u + channel % 4u][channel / 4u % 4u] = bitcast<u32>(sum);
}

// What the teams of a workgroup have of a share.
fn hand_over_share(part: u32, thread: u32) {
  let count = share_quarters();
  for (var first = 0u; first < count; first += workgroup_size) {
    let i = first + thread;
    var values: vec4<f32>;
    if (i < count) { values = combine_teams(i); }
    // Cells are free now: who has nothing to hand over goes on.
    workgroupBarrier();
    hand_over_quarter(mixed_at, part * count + i, values, 0.0, tag, i < count, thread);
  }
}

fn combine_teams(quarter: u32) -> vec4<f32> {
  let teams = workgroup_size / merge_lanes;
  var combined = nothing_combined();
  for (var first = 0u; first < teams; first += 4u) {
    let exists = vec4(first) + vec4(0u, 1u, 2u, 3u) < vec4(teams);
    let t = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(teams - 1u));
    let at = t * share_quarters() + quarter;
    combined = combine(
      combined,
      vec4(merged_largest[t.x], merged_largest[t.y], merged_largest[t.z], merged_largest[t.w]),
      vec4(merged_total[t.x], merged_total[t.y], merged_total[t.z], merged_total[t.w]),
      mat4x4(
        bitcast<vec4<f32>>(cell_hi[at.x]),
        bitcast<vec4<f32>>(cell_hi[at.y]),
        bitcast<vec4<f32>>(cell_hi[at.z]),
        bitcast<vec4<f32>>(cell_hi[at.w]),
      ),
      exists,
    );
  }
  return attention_of(combined);
}

fn cache_head_of(key_head: u32) -> u32 {
  return (own_layer * sequences + own_sequence) * key_value_heads + key_head;
}

fn norms_start() -> u32 {
  return own_layer * head_size / 2u;
}

fn await_projections(first_head: u32, key_head: u32, has_new: bool, thread: u32) {
  let count = select(1u, 3u, has_new) * head_size;
  for (var i = thread; i < count; i += workgroup_size) {
    let slot = i / head_size;
    var head = first_head;
    if (slot > 0u) { head = heads + (slot - 1u) * key_value_heads + key_head; }
    let channel = head * head_size + i % head_size;
    var value = relay_await(qkv_at + channel);
    if (has_bias == 1u) { value += bias[own_layer * (heads + 2u * key_value_heads) * head_size + channel]; }
    projections[i / 4u][i % 4u] = value;
  }
  workgroupBarrier();
}

// Four channels of a head of q, k or v, with their bias.
fn projected(head: u32, channel: u32) -> vec4<f32> {
  var slot = 0u;
  if (head >= heads) { slot = 1u + (head - heads) / key_value_heads; }
  return projections[(slot * head_size + channel) / 4u];
}

// Sums while they are merged, in cells.
fn put_merged_sum(i: u32, sum: f32) {
  cell_hi[i / 4u][i % 4u] = bitcast<u32>(sum);
}

fn merged_sum(i: u32) -> f32 {
  return bitcast<f32>(cell_hi[i / 4u][i % 4u]);
}

fn write_sum(split: u32, channel: u32, sum: f32, total: f32) {
  relay_put(sums_at + split * sums_stride + relay_place(channel), sum);
}

fn write_pair(split: u32, head: u32, largest: f32, total: f32) {
  let at = pairs_at + 2u * (split * heads + head);
  relay_put(at, largest);
  relay_put(at + 1u, total);
}

// Every workgroup combines the splits of some groups.
fn reduce_splits(workgroup: u32, thread: u32) {
  let groups = heads * head_size / 16u;
  let share = (groups + workgroups - 1u) / workgroups * 4u;
  for (var first = 0u; first < share; first += workgroup_size) {
    let i = first + thread;
    let quarter = workgroup * share + i;
    let exists = i < share && quarter < 4u * groups;
    var mixed: vec4<f32>;
    if (exists) { mixed = combine_quarter(quarter); }
    hand_over_quarter(mixed_at, quarter, mixed, 0.0, tag, exists, thread);
  }
}

// Words of a quarter of four splits.
struct FourSplits {
  largest: vec4<u32>,
  total: vec4<u32>,
  sums0: vec4<u32>,
  sums1: vec4<u32>,
  sums2: vec4<u32>,
  sums3: vec4<u32>,
}

// Four splits at a time; one past the last is the last again.
fn combine_quarter(quarter: u32) -> vec4<f32> {
  var combined = nothing_combined();
  for (var first = 0u; first < splits; first += 4u) {
    let split = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(splits - 1u));
    var words = load_splits(split, quarter);
    for (var polls = 0u; gave_up == 0u && are_stale(words); polls++) {
      words = load_splits(split, quarter);
      if (is_in_vain(polls)) { give_up(); }
    }
    let sums = mat4x4(
      values_of(words.sums0),
      values_of(words.sums1),
      values_of(words.sums2),
      values_of(words.sums3),
    );
    let exists = vec4(first) + vec4(0u, 1u, 2u, 3u) < vec4(splits);
    combined = combine(combined, values_of(words.largest), values_of(words.total), sums, exists);
  }
  if (gave_up != 0u) { return vec4(not_a_number()); }
  return attention_of(combined);
}

fn load_splits(split: vec4<u32>, quarter: u32) -> FourSplits {
  let head = quarter / 4u * 16u / head_size;
  let pair = pairs_at + 2u * (split * heads + head);
  return FourSplits(
    relay_four(pair),
    relay_four(pair + 1u),
    relay_quarter(sums_at + split.x * sums_stride, quarter),
    relay_quarter(sums_at + split.y * sums_stride, quarter),
    relay_quarter(sums_at + split.z * sums_stride, quarter),
    relay_quarter(sums_at + split.w * sums_stride, quarter),
  );
}

fn are_stale(words: FourSplits) -> bool {
  let t = vec4(tag);
  let changed = (words.largest ^ t) | (words.total ^ t) | (words.sums0 ^ t) | (words.sums1 ^ t) | (words.sums2 ^ t) |
    (words.sums3 ^ t);
  return ((changed.x | changed.y | changed.z | changed.w) & TAG_MASK) != 0u;
}
