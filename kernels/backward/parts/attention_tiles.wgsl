// needs: token_range
// What both kernels of attention's gradients work with: tiles of 32 x 32 tokens, and heads in runs of 32 elements.
//
// Tokens are of windows of range.tokens each, one after the other; each window attends to itself. A thread of 256 has
// one token of the kernel's own 32 and of the other 32 four tokens, or of a head's run four elements: `own` = thread / 8
// and `quad` = thread % 8. The kernel says in OWN_ARE_KEYS whether its own tokens are keys and the others queries, or
// the other way round.
//
// Bindings (W = windows, T = range.tokens, C = capacity, D = head_size / 4):
//   0 range         uniform, see tokens/parts/token_range.wgsl
//   1 qkv           vec4<f32> [W, T, heads + 2 key_value_heads, D]: rotated q first
//   2 keys          vec2<u32> [W, key_value_heads, C, D]   4 f16
//   3 values        vec2<u32> [W, key_value_heads, C, D]
//   4 out_gradient  vec4<f32> [W, T, heads, D]
//   5 statistics    vec2<f32> [W, heads, T]: log of the sum of exp(score), sum of out * out_gradient
//   6 qkv_gradient  vec4<f32> [W, T, heads + 2 key_value_heads, D]
override heads: u32 = 1;
override key_value_heads: u32 = 1;
override head_size: u32 = 8;
override capacity: u32 = 1;
override window: u32 = 0x7fffffff;

@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> keys: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> values: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read> out_gradient: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> statistics: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> qkv_gradient: array<vec4<f32>>;

const TILE = 32u;
const RUN_QUADS = 8u;
// Elements of a workgroup, in fours: two runs. Larger heads take several workgroups, which all make the scores.
const PART_QUADS = 16u;

// Who works on what.
struct Place {
  thread: u32,
  window_index: u32,
  // Head of the queries, and of the keys and values that it attends to.
  head: u32,
  group: u32,
  // Of the tile's own tokens.
  first_own: u32,
  // Of the elements whose gradients it makes.
  first_quad: u32,
}

// Elements or factors of own tokens: [element of the run or other token][slot of own token]
var<workgroup> own_tile: array<f32, 1024>;
// [element of the run][slot of other token / 4], or [other token][slot of element of the run / 4]
var<workgroup> other_tile: array<vec4<f32>, 256>;

// Workgroups of a head.
fn parts() -> u32 {
  return (head_size / 4u + PART_QUADS - 1u) / PART_QUADS;
}

// Four elements of a token: of a head's query, of what its output's gradient is, of a key, of a value; 0 past the end.
fn query_at(place: Place, query: u32, quad: u32) -> vec4<f32> {
  let row = place.window_index * range.tokens + min(query, range.tokens - 1u);
  let index = (row * (heads + 2u * key_value_heads) + place.head) * head_size / 4u + quad_of(quad);
  return unless_past(qkv[index], query, quad);
}

fn out_gradient_at(place: Place, query: u32, quad: u32) -> vec4<f32> {
  let row = place.window_index * range.tokens + min(query, range.tokens - 1u);
  let index = (row * heads + place.head) * head_size / 4u + quad_of(quad);
  return unless_past(out_gradient[index], query, quad);
}

fn key_at(place: Place, key: u32, quad: u32) -> vec4<f32> {
  return unless_past(unpack_four(keys[cache_index(place, key, quad)]), key, quad);
}

fn value_at(place: Place, key: u32, quad: u32) -> vec4<f32> {
  return unless_past(unpack_four(values[cache_index(place, key, quad)]), key, quad);
}

fn cache_index(place: Place, key: u32, quad: u32) -> u32 {
  let row = (place.window_index * key_value_heads + place.group) * capacity + min(key, range.tokens - 1u);
  return row * head_size / 4u + quad_of(quad);
}

fn quad_of(quad: u32) -> u32 {
  return min(quad, head_size / 4u - 1u);
}

fn unless_past(four: vec4<f32>, token: u32, quad: u32) -> vec4<f32> {
  return select(vec4(0.0), four, token < range.tokens && quad < head_size / 4u);
}

fn unpack_four(words: vec2<u32>) -> vec4<f32> {
  return vec4(unpack2x16float(words.x), unpack2x16float(words.y));
}

// Products of the thread's own token with its four others: dout . v, or else q . k.
fn products_of(place: Place, first_other: u32, of_outs: bool) -> vec4<f32> {
  let own = place.first_own + place.thread / 8u;
  let other = first_other + place.thread / 8u;
  let query = select(own, other, OWN_ARE_KEYS);
  let key = select(other, own, OWN_ARE_KEYS);
  var sums = vec4(0.0);
  for (var run = 0u; run < head_size / 4u; run += RUN_QUADS) {
    let quad = run + place.thread % 8u;
    var of_query: vec4<f32>;
    var of_key: vec4<f32>;
    if (of_outs) {
      of_query = out_gradient_at(place, query, quad);
      of_key = value_at(place, key, quad);
    } else {
      of_query = query_at(place, query, quad);
      of_key = key_at(place, key, quad);
    }
    put_products(
      place.thread,
      select(of_query, of_key, OWN_ARE_KEYS),
      select(of_key, of_query, OWN_ARE_KEYS),
    );
    sums = add_products(place.thread, sums);
  }
  return sums;
}

// Which of the thread's own token and its four others see each other.
fn seen_of(place: Place, first_other: u32) -> vec4<bool> {
  let own = vec4(place.first_own + place.thread / 8u);
  let others = vec4(first_other + 4u * (place.thread % 8u)) + vec4(0u, 1u, 2u, 3u);
  let query = select(own, others, OWN_ARE_KEYS);
  let key = select(others, own, OWN_ARE_KEYS);
  return (key <= query) & (query < key + window) & (query < vec4(range.tokens));
}

// Where a token lies in a row of a tile, shuffled by the row: lanes that store different rows at once then meet different
// memory banks. Fours of tokens stay together.
fn slot_of(token: u32, row: u32) -> u32 {
  return token ^ (row & 28u);
}

// Puts a run of both tokens into the tiles, so that products can be summed over its elements: four elements of own
// token thread / 8 and of the other's token thread / 8.
fn put_products(thread: u32, own: vec4<f32>, other: vec4<f32>) {
  let element = 4u * (thread % 8u);
  let slot = slot_of(thread / 8u, element);
  put_own(thread, own);
  other_tile[8u * element + slot / 4u][slot % 4u] = other.x;
  other_tile[8u * (element + 1u) + slot / 4u][slot % 4u] = other.y;
  other_tile[8u * (element + 2u) + slot / 4u][slot % 4u] = other.z;
  other_tile[8u * (element + 3u) + slot / 4u][slot % 4u] = other.w;
  workgroupBarrier();
}

// Puts four elements of own token thread / 8 into their tile, or its factors with its four others.
fn put_own(thread: u32, four: vec4<f32>) {
  let first = 4u * (thread % 8u);
  let at = TILE * first + slot_of(thread / 8u, first);
  workgroupBarrier();
  own_tile[at] = four.x;
  own_tile[at + TILE] = four.y;
  own_tile[at + 2u * TILE] = four.z;
  own_tile[at + 3u * TILE] = four.w;
}

// sums += factors * others over the 32 other tokens, for four elements of the run; `other` is what the thread brings of
// it: four elements of the other token thread / 8.
fn add_weighted(thread: u32, other: vec4<f32>, sums: vec4<f32>) -> vec4<f32> {
  let token = thread / 8u;
  workgroupBarrier();
  other_tile[8u * token + slot_of(4u * (thread % 8u), token) / 4u] = other;
  workgroupBarrier();
  return add_products(thread, sums);
}

// Adds the products of both tiles over their rows: elements of the run, or other tokens.
fn add_products(thread: u32, sums: vec4<f32>) -> vec4<f32> {
  var result = sums;
  for (var i = 0u; i < TILE; i += 8u) {
    result = add_row(thread, i, result);
    result = add_row(thread, i + 1u, result);
    result = add_row(thread, i + 2u, result);
    result = add_row(thread, i + 3u, result);
    result = add_row(thread, i + 4u, result);
    result = add_row(thread, i + 5u, result);
    result = add_row(thread, i + 6u, result);
    result = add_row(thread, i + 7u, result);
  }
  return result;
}

fn add_row(thread: u32, i: u32, sums: vec4<f32>) -> vec4<f32> {
  let others = other_tile[8u * i + slot_of(4u * (thread % 8u), i) / 4u];
  return fma(vec4(own_tile[TILE * i + slot_of(thread / 8u, i)]), others, sums);
}
