// needs: relay reduce_splits attend queries_1
// Attention of decode_layer.wgsl: a workgroup takes a part of a head, awaits the head's projections, which others hand
// over, and hands over its sums. Of a short sequence a part is some channels of the values, a share: the workgroups of
// a head make the same scores, which is faster than to wait for each other once more. Of a longer sequence it is a part
// of the positions; workgroups then merge the parts of some channels each.
override head_shares: u32 = 1; // 1, 2 or 4: shares of a head whose sequence isn't split, each of whole groups

var<workgroup> merged_largest: array<f32, workgroup_size / merge_lanes>;
var<workgroup> merged_total: array<f32, workgroup_size / merge_lanes>;

// Parts of the attention: those of all heads are shared out among the workgroups. Heads that share keys are taken one
// by one: arithmetic takes longer than reading keys again, which come from the cache.
fn attend_parts(workgroup: u32, position: u32, thread: u32) {
  let parts = heads * select(splits, head_shares, splits == 1u);
  for (var part = workgroup; part < parts; part += workgroups) {
    if (splits == 1u) {
      let share = Share(head_shares, part % head_shares);
      keep_sums_of(attend_tokens(heads_of(part / head_shares), 0u, share, position, thread), head_shares, thread);
      hand_over_share(part, thread);
    } else {
      keep_sums_of(attend_tokens(heads_of(part % heads), part / heads, Share(1u, 0u), position, thread), 1u, thread);
      put_split(part / heads, part % heads, thread);
    }
  }
}

// Keeps what the subgroups have of a share in cells, a quarter of a group beside the other.
fn keep_sums_of(state: Attended, shares: u32, thread: u32) {
  let index = thread / merge_lanes;
  let lane = thread % merge_lanes;
  if (lane == 0u) {
    merged_largest[index] = LN_2 * state.largest;
    merged_total[index] = state.total;
  }
  if (lane < head_size / 8u) {
    let first = index * (head_size / 4u / shares);
    let channel = 8u / shares * lane;
    let sums = state.sums;
    keep_sum(first, channel, sums.c0);
    keep_sum(first, channel + 1u, sums.c1);
    if (shares < 4u) {
      keep_sum(first, channel + 2u, sums.c2);
      keep_sum(first, channel + 3u, sums.c3);
    }
    if (shares < 2u) {
      keep_sum(first, channel + 4u, sums.c4);
      keep_sum(first, channel + 5u, sums.c5);
      keep_sum(first, channel + 6u, sums.c6);
      keep_sum(first, channel + 7u, sums.c7);
    }
  }
  workgroupBarrier();
}

fn keep_sum(first: u32, channel: u32, sum: f32) {
  cell_hi[first + channel / 16u * 4u + channel % 4u][channel / 4u % 4u] = bitcast<u32>(sum);
}

fn hand_over_share(part: u32, thread: u32) {
  let count = head_size / 4u / head_shares;
  for (var first = 0u; first < count; first += workgroup_size) {
    let i = first + thread;
    var values: vec4<f32>;
    if (i < count) { values = attention_of(combine_kept(i, count)); }
    // Cells are free now: who has nothing to hand over goes on.
    workgroupBarrier();
    hand_over_quarter(mixed_at, part * count + i, values, 0.0, tag, i < count, thread);
  }
}

fn put_split(split: u32, head: u32, thread: u32) {
  let count = head_size / 4u;
  for (var i = thread; i < count; i += workgroup_size) {
    let combined = combine_kept(i, count);
    let at = sums_at + split * sums_stride + quarter_place(head * count + i);
    relay_put(at, combined.sum.x);
    relay_put(at + 32u, combined.sum.y);
    relay_put(at + 64u, combined.sum.z);
    relay_put(at + 96u, combined.sum.w);
    if (i == 0u) {
      let pair = pairs_at + 2u * (split * heads + head);
      relay_put(pair, combined.largest);
      relay_put(pair + 1u, combined.total);
    }
  }
  workgroupBarrier();
}

// A quarter of what the subgroups of a workgroup have, which keep so many.
fn combine_kept(quarter: u32, quarters: u32) -> Combined {
  let teams = workgroup_size / merge_lanes;
  var combined = nothing_combined();
  for (var first = 0u; first < teams; first += 4u) {
    let exists = vec4(first) + vec4(0u, 1u, 2u, 3u) < vec4(teams);
    let t = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(teams - 1u));
    let at = t * quarters + quarter;
    let largest = vec4(merged_largest[t.x], merged_largest[t.y], merged_largest[t.z], merged_largest[t.w]);
    let total = vec4(merged_total[t.x], merged_total[t.y], merged_total[t.z], merged_total[t.w]);
    let sums = mat4x4(kept_sums(at.x), kept_sums(at.y), kept_sums(at.z), kept_sums(at.w));
    combined = combine(combined, largest, total, sums, exists);
  }
  return combined;
}

fn kept_sums(at: u32) -> vec4<f32> {
  return bitcast<vec4<f32>>(cell_hi[at]);
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
    for (var polls = 0u; looks_again(are_stale(words), polls); polls++) { words = load_splits(split, quarter); }
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
