// Causal attention of several tokens, one tile of keys after the other (as in FlashAttention, arXiv 2205.14135):
//
//   out[t, h] = sum over p of weight[p] * values[g, p], weight = softmax over p of q[t, h] . keys[g, p] / sqrt(head_size)
//
// over the positions p <= P + t (with a window the last `window` of them), g = h / (heads / key_value_heads). The softmax
// is taken online: sums are kept relative to the largest score so far and scaled down when a larger one comes.
//
// Bindings (T = range.tokens, P = range.first_position, C = capacity, D = head_size / 4):
//   0 range   uniform, see lib/prefill_range.wgsl
//   1 qkv     vec4<f32> [T, heads + 2 key_value_heads, D]: q first
//   2 keys    vec2<u32> [key_value_heads, C, D]   4 f16
//   3 values  vec2<u32> [key_value_heads, C, D]
//   4 out     vec4<f32> [T, heads, D]
//
// Mapping: a workgroup of 8 x 16 threads takes 32 queries of a head and 64 keys at a time. For scores a thread has 4
// queries x 4 keys, for the output 4 queries x 4 elements in each run of 64 elements of the head. Keys, queries and
// values pass through workgroup memory 32 elements or 32 keys at a time. Workgroups with the most keys come first.
override heads: u32 = 1;
override key_value_heads: u32 = 1;
override head_size: u32 = 8;
override capacity: u32 = 1;
override window: u32 = 0x7fffffff;

@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> keys: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> values: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

const TILE_QUERIES = 32u;
const TILE_KEYS = 64u;
const THREADS = 128u;
// Lower than any score, yet far from overflow when two are subtracted.
const LOWEST = -1e38;

// Keys as [element of 32][key / 4], values as [key of 32][element of 64 / 4], or one entry a thread, [x][y].
var<workgroup> cache_tile: array<array<vec4<f32>, 16>, 32>;
// Queries as [element of 32][query / 4], or softmax weights as [key][query / 4].
var<workgroup> query_tile: array<array<vec4<f32>, 8>, 64>;

// Who works on what.
struct Place {
  thread: u32,
  // Of the queries, in fours.
  y: u32,
  // Of the keys or elements, in fours.
  x: u32,
  head: u32,
  first_query: u32,
  // Positions below this are seen by some query of the tile.
  end_key: u32,
}

// One entry a key: scores or weights of four queries.
alias Scores = array<vec4<f32>, 4>;
// One entry a query: four elements.
alias Output = array<vec4<f32>, 4>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let first_query = (count.x - 1u - workgroup.x) * TILE_QUERIES;
  if (first_query >= range.tokens) { return; }
  let end_key = range.first_position + min(first_query + TILE_QUERIES, range.tokens);
  let place = Place(thread, thread / 16u, thread % 16u, workgroup.y, first_query, end_key);
  let first_seen = max(range.first_position + first_query + 1u, window) - window;
  var largest = vec4(LOWEST);
  var total = vec4(0.0);
  var out0: Output;
  var out1: Output;
  var out2: Output;
  var out3: Output;
  for (var first_key = first_seen / TILE_KEYS * TILE_KEYS; first_key < end_key; first_key += TILE_KEYS) {
    var scores = score(place, first_key);
    let old = largest;
    largest = max(old, largest_score(place, &scores));
    let shrink = exp(old - largest);
    total = total * shrink + weigh(place, first_key, largest, &scores);
    add_values(place, first_key, 0u, shrink, &out0);
    if (head_size > 64u) { add_values(place, first_key, 16u, shrink, &out1); }
    if (head_size > 128u) { add_values(place, first_key, 32u, shrink, &out2); }
    if (head_size > 192u) { add_values(place, first_key, 48u, shrink, &out3); }
  }
  let factor = 1.0 / sum_over_keys(place, total);
  write_output(place, 0u, factor, &out0);
  if (head_size > 64u) { write_output(place, 16u, factor, &out1); }
  if (head_size > 128u) { write_output(place, 32u, factor, &out2); }
  if (head_size > 192u) { write_output(place, 48u, factor, &out3); }
}

// Scores of the thread's 4 keys and 4 queries; those that a query doesn't see are LOWEST.
fn score(place: Place, first_key: u32) -> Scores {
  var sums: Scores;
  for (var first = 0u; first < head_size; first += 32u) {
    workgroupBarrier();
    load_keys(place, first_key, first / 4u);
    load_queries(place, first / 4u);
    workgroupBarrier();
    for (var i = 0u; i < 32u; i += 4u) {
      multiply_element(i, place, &sums);
      multiply_element(i + 1u, place, &sums);
      multiply_element(i + 2u, place, &sums);
      multiply_element(i + 3u, place, &sums);
    }
  }
  for (var i = 0u; i < 4u; i++) {
    let seen = is_seen(place, first_key + 4u * place.x + i);
    sums[i] = select(vec4(LOWEST), sums[i] / sqrt(f32(head_size)), seen);
  }
  return sums;
}

fn is_seen(place: Place, key: u32) -> vec4<bool> {
  let position = vec4(range.first_position + place.first_query + 4u * place.y) + vec4(0u, 1u, 2u, 3u);
  return (vec4(key) <= position) & (position < vec4(key + window)) & vec4(key < place.end_key);
}

fn multiply_element(i: u32, place: Place, sums: ptr<function, Scores>) {
  let q = query_tile[i][place.y];
  let k = cache_tile[i][place.x];
  (*sums)[0] = fma(q, vec4(k.x), (*sums)[0]);
  (*sums)[1] = fma(q, vec4(k.y), (*sums)[1]);
  (*sums)[2] = fma(q, vec4(k.z), (*sums)[2]);
  (*sums)[3] = fma(q, vec4(k.w), (*sums)[3]);
}

// 64 keys x 32 elements from element 4 * first_quad on, zeros past the end of the head.
fn load_keys(place: Place, first_key: u32, first_quad: u32) {
  for (var i = place.thread; i < TILE_KEYS * 8u; i += THREADS) {
    let key = i / 8u;
    let quad = i % 8u;
    let k = cached(place, first_key + key, first_quad + quad, true);
    for (var j = 0u; j < 4u; j++) { cache_tile[4u * quad + j][key / 4u][key % 4u] = k[j]; }
  }
}

fn load_queries(place: Place, first_quad: u32) {
  let quads = head_size / 4u;
  for (var i = place.thread; i < TILE_QUERIES * 8u; i += THREADS) {
    let query = i / 8u;
    let quad = i % 8u;
    let token = min(place.first_query + query, range.tokens - 1u);
    let head_at = (token * (heads + 2u * key_value_heads) + place.head) * quads;
    let value = qkv[head_at + min(first_quad + quad, quads - 1u)];
    let q = select(vec4(0.0), value, first_quad + quad < quads);
    for (var j = 0u; j < 4u; j++) { query_tile[4u * quad + j][query / 4u][query % 4u] = q[j]; }
  }
}

// Four elements of a key or value; zeros past the end of the head, the last key in place of those past the end.
fn cached(place: Place, key: u32, quad: u32, is_key: bool) -> vec4<f32> {
  let quads = head_size / 4u;
  let cache_head = place.head / (heads / key_value_heads);
  let at = (cache_head * capacity + min(key, place.end_key - 1u)) * quads + min(quad, quads - 1u);
  var words: vec2<u32>;
  if (is_key) { words = keys[at]; } else { words = values[at]; }
  return select(vec4(0.0), vec4(unpack2x16float(words.x), unpack2x16float(words.y)), quad < quads);
}

// The largest score of each of the thread's queries over all keys of the tile.
fn largest_score(place: Place, scores: ptr<function, Scores>) -> vec4<f32> {
  workgroupBarrier();
  cache_tile[place.x][place.y] = max(max((*scores)[0], (*scores)[1]), max((*scores)[2], (*scores)[3]));
  workgroupBarrier();
  var largest = cache_tile[0][place.y];
  for (var x = 1u; x < 16u; x++) { largest = max(largest, cache_tile[x][place.y]); }
  return largest;
}

// Puts softmax weights relative to `largest` into workgroup memory and returns the sum of the thread's own.
fn weigh(place: Place, first_key: u32, largest: vec4<f32>, scores: ptr<function, Scores>) -> vec4<f32> {
  var sum = vec4(0.0);
  for (var i = 0u; i < 4u; i++) {
    let seen = is_seen(place, first_key + 4u * place.x + i);
    let weight = select(vec4(0.0), exp((*scores)[i] - largest), seen);
    query_tile[4u * place.x + i][place.y] = weight;
    sum += weight;
  }
  return sum;
}

// sums = shrink * sums + weights * values, for 64 elements from element 4 * first_quad on.
fn add_values(place: Place, first_key: u32, first_quad: u32, shrink: vec4<f32>, sums: ptr<function, Output>) {
  (*sums)[0] *= shrink.x;
  (*sums)[1] *= shrink.y;
  (*sums)[2] *= shrink.z;
  (*sums)[3] *= shrink.w;
  for (var half = 0u; half < TILE_KEYS; half += 32u) {
    workgroupBarrier();
    for (var i = place.thread; i < 32u * 16u; i += THREADS) {
      cache_tile[i / 16u][i % 16u] = cached(place, first_key + half + i / 16u, first_quad + i % 16u, false);
    }
    workgroupBarrier();
    for (var i = 0u; i < 32u; i += 4u) {
      multiply_key(half, i, place, sums);
      multiply_key(half, i + 1u, place, sums);
      multiply_key(half, i + 2u, place, sums);
      multiply_key(half, i + 3u, place, sums);
    }
  }
}

fn multiply_key(half: u32, i: u32, place: Place, sums: ptr<function, Output>) {
  let weights = query_tile[half + i][place.y];
  let v = cache_tile[i][place.x];
  (*sums)[0] = fma(vec4(weights.x), v, (*sums)[0]);
  (*sums)[1] = fma(vec4(weights.y), v, (*sums)[1]);
  (*sums)[2] = fma(vec4(weights.z), v, (*sums)[2]);
  (*sums)[3] = fma(vec4(weights.w), v, (*sums)[3]);
}

// Each thread's sums are over its own keys; the sum over all keys of a query is over 16 threads.
fn sum_over_keys(place: Place, own: vec4<f32>) -> vec4<f32> {
  workgroupBarrier();
  cache_tile[place.x][place.y] = own;
  workgroupBarrier();
  var sum = vec4(0.0);
  for (var x = 0u; x < 16u; x++) { sum += cache_tile[x][place.y]; }
  return sum;
}

fn write_output(place: Place, first_quad: u32, factor: vec4<f32>, sums: ptr<function, Output>) {
  write_query(place, 0u, first_quad, (*sums)[0] * factor.x);
  write_query(place, 1u, first_quad, (*sums)[1] * factor.y);
  write_query(place, 2u, first_quad, (*sums)[2] * factor.z);
  write_query(place, 3u, first_quad, (*sums)[3] * factor.w);
}

fn write_query(place: Place, i: u32, first_quad: u32, value: vec4<f32>) {
  let query = place.first_query + 4u * place.y + i;
  let quads = head_size / 4u;
  let quad = first_quad + place.x;
  if (query < range.tokens && quad < quads) { out[(query * heads + place.head) * quads + quad] = value; }
}
