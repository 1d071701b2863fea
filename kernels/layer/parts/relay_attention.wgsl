// needs: relay reduce_splits attend queries_1
// Attention of decode_layer.wgsl: a workgroup takes a part of the positions of a head, awaits the head's projections,
// which others hand over, and hands over its sums; then workgroups merge the parts of some channels each.

// Parts of the attention: those of all heads and all splits are shared out among the workgroups. Heads that share keys
// are taken one by one: arithmetic takes longer than reading keys again, which come from the cache.
fn attend_splits(workgroup: u32, position: u32, thread: u32) {
  for (var part = workgroup; part < heads * splits; part += workgroups) {
    attend_split(part % heads, part / heads, position, thread);
    workgroupBarrier();
    if (splits == 1u) {
      hand_over_head(part, thread);
      workgroupBarrier();
    }
  }
}

// A head of a whole sequence, from `projections`.
fn hand_over_head(head: u32, thread: u32) {
  let count = head_size / 4u;
  for (var first = 0u; first < count; first += workgroup_size) {
    let i = first + thread;
    let four = i / 4u * 4u;
    let j = i % 4u;
    var values: vec4<f32>;
    if (i < count) {
      values = vec4(
        projections[four][j],
        projections[four + 1u][j],
        projections[four + 2u][j],
        projections[four + 3u][j],
      );
    }
    hand_over_quarter(mixed_at, head * count + i, values, 0.0, tag, i < count, thread);
  }
}

fn cache_head_of(key_head: u32) -> u32 {
  return (own_layer * sequences + own_sequence) * key_value_heads + key_head;
}

fn norms_start() -> u32 {
  return own_layer * head_size / 2u;
}

fn await_projections(first_head: u32, key_head: u32, has_new: bool, thread: u32) {
  own_head = first_head;
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
  if (splits == 1u) {
    // q, k and v aren't needed any more.
    let own = channel - own_head * head_size;
    projections[own / 4u][own % 4u] = select(sum / total, 0.0, total == 0.0);
  } else {
    relay_put(sums_at + split * sums_stride + relay_place(channel), sum);
  }
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
