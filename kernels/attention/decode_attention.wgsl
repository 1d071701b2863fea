// needs: attend
// Attention of one new token for each of some sequences, split over the sequence: rotates its queries and its key,
// appends key and value to the cache, and sums over a part of the cached tokens in each workgroup:
//
//   partial[s, h] = sum over tokens t of split s of exp(q_h k_t / sqrt(head_size) - max) v_t,  with max and sum of exp
//
// which the kernel that reads it combines (GemvInput "attention"). A single split is divided by its sum of exp already:
// its partial result is the attention, alone.
//
// Bindings (D = head_size, K = key_value_heads, C = capacity, S = splits, T = new tokens):
//   0 qkv        vec4<f32> [T, (heads + 2 K) D / 4]   q rows, k rows, v rows, as the linear layer leaves them
//   1 rotations  vec4<f32> [C, D / 4]      cos, sin, cos, sin of position x two frequencies
//   2 keys       [sequences, K, C, D]      rotated, see the part that serves cache_rows
//   3 values     [sequences, K, C, D]
//   4 sequence   vec2<u32> [T]             position of the token, index of its sequence in the cache
//   5 partials   f32 [T, ...]              sums [S, heads D], then, of several splits, max and sum of exp
//                                       as vec2 [S, heads]
//   6 bias       vec4<f32> [(heads + 2 K) D / 4]   added to qkv where has_bias
//   7 norms      vec4<f32> [2, D / 4]      of queries and of keys where has_norm
//
// Mapping: workgroup.x is a group of up to QUERIES query heads that share a key head, workgroup.y a split, workgroup.z
// the new token. A key's channels are spread over row_lanes lanes, 8 each; the teams of row_lanes lanes in a
// workgroup take tokens in turn, four a step, each with a running maximum of its own, so nothing waits for a barrier
// until the end. The last split also takes the new token, whose key and value come from registers, before the others.
// Where the asynchrony is: keys and values of a step are asked for together, two steps ahead; those of the first two
// before the queries are read and rotated.
override splits: u32 = 1;
override workgroup_size: u32 = 64;

@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> rotations: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> keys: array<CacheVector>;
@group(0) @binding(3) var<storage, read_write> values: array<CacheVector>;
@group(0) @binding(4) var<storage, read> sequence: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> partials: array<f32>;
@group(0) @binding(6) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> norms: array<vec4<f32>>;

// Index of the workgroup's new token.
var<private> own_token: u32;

var<workgroup> merged_largest: array<Queries, workgroup_size / merge_lanes>;
var<workgroup> merged_total: array<Queries, workgroup_size / merge_lanes>;
var<workgroup> merged_sums: array<Queries, workgroup_size / merge_lanes * row_lanes * 8>;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  own_token = workgroup.z;
  // By the workgroup's index: browsers don't take a variable, and what it leads to, for uniform.
  let own = heads_of(workgroup.x);
  let state = attend_tokens(own, workgroup.y, Share(1u, 0u), sequence[workgroup.z].x, thread);
  write_merged(state, own.first, own.count, workgroup.y, thread);
}

fn cache_head_of(key_head: u32) -> u32 {
  return sequence[own_token].y * key_value_heads + key_head;
}

fn norms_start() -> u32 {
  return 0u;
}

fn await_projections(first_head: u32, key_head: u32, has_new: bool, thread: u32) {}

// Four channels of a head with their bias.
fn projected(head: u32, channel: u32) -> vec4<f32> {
  let at = (head * head_size + channel) / 4u;
  let value = qkv[own_token * (heads + 2u * key_value_heads) * head_size / 4u + at];
  if (has_bias == 1u) { return value + bias[at]; }
  return value;
}

// Merges what is left through workgroup memory and writes the split's partial result.
fn write_merged(state: Attended, first_head: u32, queries: u32, split: u32, thread: u32) {
  let teams = workgroup_size / merge_lanes;
  let team = thread / merge_lanes;
  if (thread % merge_lanes == 0u) { merged_largest[team] = state.largest; }
  workgroupBarrier();
  // Four at a time here and below, since each turn waits for its loads.
  let last = teams - 1u;
  var largest = Queries(LOWEST);
  for (var i = 0u; i < teams; i += 4u) {
    let first_two = max(merged_largest[i], merged_largest[min(i + 1u, last)]);
    largest = max(largest, max(first_two, max(merged_largest[min(i + 2u, last)], merged_largest[min(i + 3u, last)])));
  }
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
  var total = Queries(0.0);
  for (var i = 0u; i < teams; i += 4u) {
    total += merged_total[i] + select(Queries(0.0), merged_total[min(i + 1u, last)], i + 1u < teams) +
      (select(Queries(0.0), merged_total[min(i + 2u, last)], i + 2u < teams) +
        select(Queries(0.0), merged_total[min(i + 3u, last)], i + 3u < teams));
  }
  for (var channel = thread; channel < head_size; channel += workgroup_size) {
    let at = channel % 8u * row_lanes + channel / 8u;
    var sum = Queries(0.0);
    for (var i = 0u; i < teams; i += 4u) {
      sum += merged_sums[i * width + at] +
        select(Queries(0.0), merged_sums[min(i + 1u, last) * width + at], i + 1u < teams) +
        (select(Queries(0.0), merged_sums[min(i + 2u, last) * width + at], i + 2u < teams) +
          select(Queries(0.0), merged_sums[min(i + 3u, last) * width + at], i + 3u < teams));
    }
    for (var i = 0u; i < min(queries, QUERIES); i++) {
      write_sum(split, (first_head + i) * head_size + channel, query_of(sum, i), query_of(total, i));
    }
  }
  if (splits > 1u && thread < min(queries, QUERIES)) {
    write_pair(split, first_head + thread, LN_2 * query_of(largest, thread), query_of(total, thread));
  }
}

fn write_sum(split: u32, channel: u32, sum: f32, total: f32) {
  partials[first_partial() + split * heads * head_size + channel] = select(sum, sum / total, splits == 1u);
}

fn write_pair(split: u32, head: u32, largest: f32, total: f32) {
  let at = first_partial() + splits * heads * head_size + 2u * (split * heads + head);
  partials[at] = largest;
  partials[at + 1u] = total;
}

fn first_partial() -> u32 {
  return own_token * splits * heads * (head_size + select(2u, 0u, splits == 1u));
}
