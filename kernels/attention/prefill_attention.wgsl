// needs: attention_loads token_range fours
// Causal attention of several tokens, one tile of keys after the other (as in FlashAttention, arXiv 2205.14135):
//
//   out[t, h] = sum over p of weight[p] * values[g, p], weight = softmax over p of q[t, h] . keys[g, p] /
//   sqrt(head_size)
//
// over the positions p <= P + t (with a window the last `window` of them), g = h / (heads / key_value_heads). The
// softmax is taken online: sums are kept relative to the largest score so far and scaled down when a larger one comes.
//
// where t counts from the first token of its sequence.
//
// Bindings (T = range.tokens, P = range.first_position, C = capacity, D = head_size / 4):
//   0 range   uniform, see tokens/parts/token_range.wgsl
//   1 qkv     vec4<f32> [T, heads + 2 key_value_heads, D]: q first
//   2 keys    [sequences, key_value_heads, C, head_size]   see the part that serves cache_rows
//   3 values  [sequences, key_value_heads, C, head_size]
//   4 out     fours [T, heads, D]: f32 or f16, see gpu/parts/float_fours.wgsl and half_fours.wgsl
//
// Mapping: a workgroup of 16 x 8 threads takes 64 queries of a head and 32 keys at a time. For scores a thread has 4
// queries x 4 keys, for the output 4 queries x 4 elements in each run of 32 elements of the head. Keys, queries and
// values pass through workgroup memory 32 elements at a time (attention/parts/attention_loads.wgsl). Workgroups with
// the most keys come first. workgroup.z is the sequence.
override heads: u32 = 1;
override key_value_heads: u32 = 1;
override head_size: u32 = 8;
override capacity: u32 = 1;
override window: u32 = 0x7fffffff;

@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> keys: array<CacheVector>;
@group(0) @binding(3) var<storage, read> values: array<CacheVector>;
@group(0) @binding(4) var<storage, read_write> out: array<Four>;

const TILE_QUERIES = 64u;
const TILE_KEYS = 32u;
// Lower than any score, yet far from overflow when two are subtracted.
const LOWEST = -1e38;

// Keys as [element of 32][key / 4], values as [key][element of 32 / 4].
var<workgroup> cache_tile: array<array<vec4<f32>, 8>, 32>;
// Queries as [element of 32][query / 4], softmax weights as [key][query / 4], or one entry a thread as [x][y].
var<workgroup> query_tile: array<array<vec4<f32>, 16>, 32>;

// Who works on what.
struct Place {
  thread: u32,
  // Of the queries, in fours.
  y: u32,
  // Of the keys or elements, in fours.
  x: u32,
  head: u32,
  // Of the tile, counted in its sequence.
  first_query: u32,
  // The sequence among those of the range, its first token there, and its tokens.
  sequence: u32,
  first_token: u32,
  tokens: u32,
  // Positions below this are seen by some query of the tile.
  end_key: u32,
}

// One entry a key: scores or weights of four queries. Or one entry a query: four elements of the output.
alias Quads = array<vec4<f32>, 4>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let first_query = (count.y - 1u - workgroup.y) * TILE_QUERIES;
  let first_token = workgroup.z * range.sequence_tokens;
  if (first_token + first_query >= range.tokens) { return; }
  let tokens = min(range.sequence_tokens, range.tokens - first_token);
  let end_key = range.first_position + min(first_query + TILE_QUERIES, tokens);
  let place = Place(
    thread,
    thread / 8u,
    thread % 8u,
    workgroup.x,
    first_query,
    workgroup.z,
    first_token,
    tokens,
    end_key,
  );
  let first_seen = max(range.first_position + first_query + 1u, window) - window;
  var largest = vec4(LOWEST);
  var total = vec4(0.0);
  var out0: Quads;
  var out1: Quads;
  var out2: Quads;
  var out3: Quads;
  var out4: Quads;
  var out5: Quads;
  var out6: Quads;
  var out7: Quads;
  for (var first_key = first_seen / TILE_KEYS * TILE_KEYS; first_key < end_key; first_key += TILE_KEYS) {
    var weights = score(place, first_key);
    let old = largest;
    largest = max(old, largest_score(place, &weights));
    let shrink = exp(old - largest);
    total = fma(total, shrink, weigh(place, first_key, largest, &weights));
    add_values(place, first_key, 0u, shrink, &out0);
    if (head_size > 32u) { add_values(place, first_key, 8u, shrink, &out1); }
    if (head_size > 64u) { add_values(place, first_key, 16u, shrink, &out2); }
    if (head_size > 96u) { add_values(place, first_key, 24u, shrink, &out3); }
    if (head_size > 128u) { add_values(place, first_key, 32u, shrink, &out4); }
    if (head_size > 160u) { add_values(place, first_key, 40u, shrink, &out5); }
    if (head_size > 192u) { add_values(place, first_key, 48u, shrink, &out6); }
    if (head_size > 224u) { add_values(place, first_key, 56u, shrink, &out7); }
  }
  let factor = 1.0 / sum_over_keys(place, total);
  write_output(place, 0u, factor, &out0);
  if (head_size > 32u) { write_output(place, 8u, factor, &out1); }
  if (head_size > 64u) { write_output(place, 16u, factor, &out2); }
  if (head_size > 96u) { write_output(place, 24u, factor, &out3); }
  if (head_size > 128u) { write_output(place, 32u, factor, &out4); }
  if (head_size > 160u) { write_output(place, 40u, factor, &out5); }
  if (head_size > 192u) { write_output(place, 48u, factor, &out6); }
  if (head_size > 224u) { write_output(place, 56u, factor, &out7); }
}

// Scores of the thread's 4 keys and 4 queries; those that a query doesn't see are LOWEST.
fn score(place: Place, first_key: u32) -> Quads {
  var sums: Quads;
  for (var first = 0u; first < head_size; first += 32u) {
    workgroupBarrier();
    load_keys(place, first_key, first / 4u);
    load_queries(place, first / 4u);
    workgroupBarrier();
    for (var i = 0u; i < 32u; i += 8u) {
      multiply_element(i, place, &sums);
      multiply_element(i + 1u, place, &sums);
      multiply_element(i + 2u, place, &sums);
      multiply_element(i + 3u, place, &sums);
      multiply_element(i + 4u, place, &sums);
      multiply_element(i + 5u, place, &sums);
      multiply_element(i + 6u, place, &sums);
      multiply_element(i + 7u, place, &sums);
    }
  }
  let key = first_key + 4u * place.x;
  let scale = 1.0 / sqrt(f32(head_size));
  return Quads(
    select(vec4(LOWEST), sums[0] * scale, is_seen(place, key)),
    select(vec4(LOWEST), sums[1] * scale, is_seen(place, key + 1u)),
    select(vec4(LOWEST), sums[2] * scale, is_seen(place, key + 2u)),
    select(vec4(LOWEST), sums[3] * scale, is_seen(place, key + 3u)),
  );
}

// Which of the thread's four queries see a key.
fn is_seen(place: Place, key: u32) -> vec4<bool> {
  let position = vec4(range.first_position + place.first_query + 4u * place.y) + vec4(0u, 1u, 2u, 3u);
  return (vec4(key) <= position) & (position < vec4(key + window)) & vec4(key < place.end_key);
}

fn multiply_element(i: u32, place: Place, sums: ptr<function, Quads>) {
  let q = query_tile[i][place.y];
  let k = cache_tile[i][place.x];
  (*sums)[0] = fma(q, vec4(k.x), (*sums)[0]);
  (*sums)[1] = fma(q, vec4(k.y), (*sums)[1]);
  (*sums)[2] = fma(q, vec4(k.z), (*sums)[2]);
  (*sums)[3] = fma(q, vec4(k.w), (*sums)[3]);
}

// The largest score of each of the thread's queries over all keys of the tile.
fn largest_score(place: Place, scores: ptr<function, Quads>) -> vec4<f32> {
  workgroupBarrier();
  query_tile[place.x][place.y] = max(max((*scores)[0], (*scores)[1]), max((*scores)[2], (*scores)[3]));
  workgroupBarrier();
  let low = max(max(query_tile[0][place.y], query_tile[1][place.y]), max(query_tile[2][place.y], query_tile[3][place.y]));
  let high = max(max(query_tile[4][place.y], query_tile[5][place.y]), max(query_tile[6][place.y], query_tile[7][place.y]));
  workgroupBarrier();
  return max(low, high);
}

// Puts softmax weights relative to `largest` into workgroup memory and returns the sum of the thread's own.
fn weigh(place: Place, first_key: u32, largest: vec4<f32>, scores: ptr<function, Quads>) -> vec4<f32> {
  let key = first_key + 4u * place.x;
  let weight0 = select(vec4(0.0), exp((*scores)[0] - largest), is_seen(place, key));
  let weight1 = select(vec4(0.0), exp((*scores)[1] - largest), is_seen(place, key + 1u));
  let weight2 = select(vec4(0.0), exp((*scores)[2] - largest), is_seen(place, key + 2u));
  let weight3 = select(vec4(0.0), exp((*scores)[3] - largest), is_seen(place, key + 3u));
  query_tile[4u * place.x][place.y] = weight0;
  query_tile[4u * place.x + 1u][place.y] = weight1;
  query_tile[4u * place.x + 2u][place.y] = weight2;
  query_tile[4u * place.x + 3u][place.y] = weight3;
  return weight0 + weight1 + (weight2 + weight3);
}

// sums = shrink * sums + weights * values, for 32 elements from element 4 * first_quad on.
fn add_values(place: Place, first_key: u32, first_quad: u32, shrink: vec4<f32>, sums: ptr<function, Quads>) {
  workgroupBarrier();
  load_values(place, first_key, first_quad);
  workgroupBarrier();
  (*sums)[0] *= shrink.x;
  (*sums)[1] *= shrink.y;
  (*sums)[2] *= shrink.z;
  (*sums)[3] *= shrink.w;
  for (var key = 0u; key < TILE_KEYS; key += 8u) {
    multiply_key(key, place, sums);
    multiply_key(key + 1u, place, sums);
    multiply_key(key + 2u, place, sums);
    multiply_key(key + 3u, place, sums);
    multiply_key(key + 4u, place, sums);
    multiply_key(key + 5u, place, sums);
    multiply_key(key + 6u, place, sums);
    multiply_key(key + 7u, place, sums);
  }
}

fn multiply_key(key: u32, place: Place, sums: ptr<function, Quads>) {
  let weights = query_tile[key][place.y];
  let v = cache_tile[key][place.x];
  (*sums)[0] = fma(vec4(weights.x), v, (*sums)[0]);
  (*sums)[1] = fma(vec4(weights.y), v, (*sums)[1]);
  (*sums)[2] = fma(vec4(weights.z), v, (*sums)[2]);
  (*sums)[3] = fma(vec4(weights.w), v, (*sums)[3]);
}

// Each thread's sums are over its own keys; the sum over all keys of a query is over 8 threads.
fn sum_over_keys(place: Place, own: vec4<f32>) -> vec4<f32> {
  workgroupBarrier();
  query_tile[place.x][place.y] = own;
  workgroupBarrier();
  var sum = vec4(0.0);
  for (var x = 0u; x < 8u; x++) { sum += query_tile[x][place.y]; }
  return sum;
}

fn write_output(place: Place, first_quad: u32, factor: vec4<f32>, sums: ptr<function, Quads>) {
  write_query(place, 0u, first_quad, (*sums)[0] * factor.x);
  write_query(place, 1u, first_quad, (*sums)[1] * factor.y);
  write_query(place, 2u, first_quad, (*sums)[2] * factor.z);
  write_query(place, 3u, first_quad, (*sums)[3] * factor.w);
}

fn write_query(place: Place, i: u32, first_quad: u32, value: vec4<f32>) {
  let query = place.first_query + 4u * place.y + i;
  let quads = head_size / 4u;
  let quad = first_quad + place.x;
  if (query < place.tokens && quad < quads) {
    out[((place.first_token + query) * heads + place.head) * quads + quad] = four_of(value);
  }
}
