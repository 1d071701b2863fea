// needs: token_range cache_rows cache_stores finite_bits
// From the qkv product to attention, for the tokens of a range: bias, norm of each head, rotary position, cache.
//
//   q = rotate(norm(q + bias)), in place;  keys[position] = rotate(norm(k + bias));  values[position] = v + bias
//
// where norm is RMSNorm over a head and rotate turns elements i and i + head_size / 2 of a head by the position's angle
// i.
//
// Bindings (T = range.tokens, C = capacity):
//   0 range        uniform, see tokens/parts/token_range.wgsl
//   1 qkv          f32 [T, (heads + 2 key_value_heads) * head_size]: q, then k, then v
//   2 rotations    vec2<f32> [C, head_size / 2]   cosine and sine of each position's angles
//   3 bias         f32 [(heads + 2 key_value_heads) * head_size], where has_bias
//   4 head_norms   f32 [2, head_size]: of q, of k, where has_norm
//   5 keys         [sequences, key_value_heads, C, head_size]   see the part that serves cache_rows
//   6 values       [sequences, key_value_heads, C, head_size]
//
// Mapping: a workgroup a head of a token, whose index is in z; a thread four elements: two neighbours and their
// partners half a head away.
override heads: u32 = 1;
override key_value_heads: u32 = 1;
override head_size: u32 = 8;
override capacity: u32 = 1;
override has_bias: u32 = 0;
override has_norm: u32 = 0;
override epsilon: f32 = 0.0;
override workgroup_size: u32 = 2; // = head_size / 4

@group(0) @binding(1) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> rotations: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> head_norms: array<f32>;
@group(0) @binding(5) var<storage, read_write> keys: array<CacheVector>;
@group(0) @binding(6) var<storage, read_write> values: array<CacheVector>;

var<workgroup> squares: array<f32, workgroup_size>;
var<workgroup> row: array<vec4<f32>, workgroup_size>;

// Elements i, i + 1 of a head, and i + head_size / 2, i + 1 + head_size / 2.
struct Pairs {
  first: vec2<f32>,
  second: vec2<f32>,
}

@compute @workgroup_size(workgroup_size)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let head = workgroup.x;
  let token = workgroup.z;
  if (token >= range.tokens) { return; }
  let is_value = head >= heads + key_value_heads;
  var pairs = load_pairs(token, head, 2u * thread);
  if (has_norm == 1u && !is_value) { pairs = normalize(pairs, select(0u, head_size, head >= heads), thread); }
  let position = range.first_position + token % range.sequence_tokens;
  if (!is_value) { pairs = rotate(pairs, position, 2u * thread); }
  if (head < heads) {
    store_query(pairs, token, head, 2u * thread);
  } else {
    let sequence = range.sequence + token / range.sequence_tokens;
    cache(pairs, sequence, position, head, thread, is_value);
  }
}

fn load_pairs(token: u32, head: u32, i: u32) -> Pairs {
  let half = head_size / 2u;
  let channel = head * head_size + i;
  let at = token * (heads + 2u * key_value_heads) * head_size + channel;
  var pairs = Pairs(vec2(qkv[at], qkv[at + 1u]), vec2(qkv[at + half], qkv[at + half + 1u]));
  if (has_bias == 1u) {
    pairs.first += vec2(bias[channel], bias[channel + 1u]);
    pairs.second += vec2(bias[channel + half], bias[channel + half + 1u]);
  }
  return pairs;
}

fn normalize(pairs: Pairs, first_weight: u32, thread: u32) -> Pairs {
  squares[thread] = dot(pairs.first, pairs.first) + dot(pairs.second, pairs.second);
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < workgroup_size; i++) { sum += squares[i]; }
  let factor = 1.0 / sqrt(sum / f32(head_size) + epsilon);
  let low = first_weight + 2u * thread;
  let high = low + head_size / 2u;
  return Pairs(
    pairs.first * factor * vec2(head_norms[low], head_norms[low + 1u]),
    pairs.second * factor * vec2(head_norms[high], head_norms[high + 1u]),
  );
}

fn rotate(pairs: Pairs, position: u32, i: u32) -> Pairs {
  let a = rotations[position * (head_size / 2u) + i];
  let b = rotations[position * (head_size / 2u) + i + 1u];
  let cosines = vec2(a.x, b.x);
  let sines = vec2(a.y, b.y);
  return Pairs(
    pairs.first * cosines - pairs.second * sines,
    pairs.second * cosines + pairs.first * sines,
  );
}

fn store_query(pairs: Pairs, token: u32, head: u32, i: u32) {
  let at = (token * (heads + 2u * key_value_heads) + head) * head_size + i;
  qkv[at] = pairs.first.x;
  qkv[at + 1u] = pairs.first.y;
  qkv[at + head_size / 2u] = pairs.second.x;
  qkv[at + head_size / 2u + 1u] = pairs.second.y;
}

// Joins what the threads have of a row, eight channels each.
fn cache(pairs: Pairs, sequence: u32, position: u32, head: u32, thread: u32, is_value: bool) {
  let i = 2u * thread % 4u;
  row[thread / 2u][i] = pairs.first.x;
  row[thread / 2u][i + 1u] = pairs.first.y;
  row[(workgroup_size + thread) / 2u][i] = pairs.second.x;
  row[(workgroup_size + thread) / 2u][i + 1u] = pairs.second.y;
  workgroupBarrier();
  if (thread >= head_size / 8u) { return; }
  var largest = 0u;
  if (HAS_FACTORS) {
    for (var quad = 0u; quad < workgroup_size; quad++) { largest = max(largest, largest_bits(row[quad])); }
  }
  let own = row_of(row[2u * thread], row[2u * thread + 1u], largest);
  let cache_head = sequence * key_value_heads + head - heads - select(0u, key_value_heads, is_value);
  if (is_value) {
    cache_value(cache_head, position, thread, own);
  } else {
    cache_key(cache_head, position, thread, own);
  }
}
