// needs: token_range
// What both kernels of attention's gradients work with: tiles of 32 x 32 tokens, and heads in runs of 32 elements.
//
// Tokens are of windows of range.tokens each, one after the other; each window attends to itself. A thread of 256 has
// one token of the kernel's own 32 and of the other 32 four tokens, or of a head's run four elements: `own` = thread / 8
// and `quad` = thread % 8.
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

// [element of the run][slot of own token]
var<workgroup> own_tile: array<f32, 1024>;
// [element of the run][slot of other token / 4], or [other token][element of the run / 4]
var<workgroup> other_tile: array<vec4<f32>, 256>;
// [other token][slot of own token]
var<workgroup> factor_tile: array<f32, 1024>;

// Workgroups of a head.
fn parts() -> u32 {
  return (head_size / 4u + PART_QUADS - 1u) / PART_QUADS;
}

// Four elements of a token, of a head's gradient or query, or 0 past the end.
fn query_at(window_index: u32, head: u32, query: u32, quad: u32) -> vec4<f32> {
  let quads = head_size / 4u;
  let row = window_index * range.tokens + min(query, range.tokens - 1u);
  let found = qkv[(row * (heads + 2u * key_value_heads) + head) * quads + min(quad, quads - 1u)];
  return select(vec4(0.0), found, query < range.tokens && quad < quads);
}

fn out_gradient_at(window_index: u32, head: u32, query: u32, quad: u32) -> vec4<f32> {
  let quads = head_size / 4u;
  let row = window_index * range.tokens + min(query, range.tokens - 1u);
  let found = out_gradient[(row * heads + head) * quads + min(quad, quads - 1u)];
  return select(vec4(0.0), found, query < range.tokens && quad < quads);
}

fn key_at(window_index: u32, head: u32, key: u32, quad: u32) -> vec4<f32> {
  let quads = head_size / 4u;
  let row = (window_index * key_value_heads + head) * capacity + min(key, range.tokens - 1u);
  let found = keys[row * quads + min(quad, quads - 1u)];
  return select(vec4(0.0), unpack_four(found), key < range.tokens && quad < quads);
}

fn value_at(window_index: u32, head: u32, key: u32, quad: u32) -> vec4<f32> {
  let quads = head_size / 4u;
  let row = (window_index * key_value_heads + head) * capacity + min(key, range.tokens - 1u);
  let found = values[row * quads + min(quad, quads - 1u)];
  return select(vec4(0.0), unpack_four(found), key < range.tokens && quad < quads);
}

fn unpack_four(words: vec2<u32>) -> vec4<f32> {
  return vec4(unpack2x16float(words.x), unpack2x16float(words.y));
}

fn is_seen(query: u32, key: u32) -> bool {
  return key <= query && query < key + window && query < range.tokens;
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
  workgroupBarrier();
  own_tile[TILE * element + slot] = own.x;
  own_tile[TILE * (element + 1u) + slot] = own.y;
  own_tile[TILE * (element + 2u) + slot] = own.z;
  own_tile[TILE * (element + 3u) + slot] = own.w;
  other_tile[8u * element + slot / 4u][slot % 4u] = other.x;
  other_tile[8u * (element + 1u) + slot / 4u][slot % 4u] = other.y;
  other_tile[8u * (element + 2u) + slot / 4u][slot % 4u] = other.z;
  other_tile[8u * (element + 3u) + slot / 4u][slot % 4u] = other.w;
  workgroupBarrier();
}

// Products of the thread's own token with its four others, over the run.
fn add_products(thread: u32, sums: vec4<f32>) -> vec4<f32> {
  var result = sums;
  for (var i = 0u; i < TILE; i += 8u) {
    result = add_element(thread, i, result);
    result = add_element(thread, i + 1u, result);
    result = add_element(thread, i + 2u, result);
    result = add_element(thread, i + 3u, result);
    result = add_element(thread, i + 4u, result);
    result = add_element(thread, i + 5u, result);
    result = add_element(thread, i + 6u, result);
    result = add_element(thread, i + 7u, result);
  }
  return result;
}

fn add_element(thread: u32, i: u32, sums: vec4<f32>) -> vec4<f32> {
  let others = other_tile[8u * i + slot_of(4u * (thread % 8u), i) / 4u];
  return fma(vec4(own_tile[TILE * i + slot_of(thread / 8u, i)]), others, sums);
}

// Puts factors of the thread's own token and its four others into their tile.
fn put_factors(thread: u32, factors: vec4<f32>) {
  let other = 4u * (thread % 8u);
  let at = TILE * other + slot_of(thread / 8u, other);
  workgroupBarrier();
  factor_tile[at] = factors.x;
  factor_tile[at + TILE] = factors.y;
  factor_tile[at + 2u * TILE] = factors.z;
  factor_tile[at + 3u * TILE] = factors.w;
}

// sums += factors * others over the 32 other tokens, for four elements of the run; `other` is what the thread brings of
// it: four elements of the other token thread / 8.
fn add_weighted(thread: u32, other: vec4<f32>, sums: vec4<f32>) -> vec4<f32> {
  workgroupBarrier();
  other_tile[thread] = other;
  workgroupBarrier();
  var result = sums;
  for (var i = 0u; i < TILE; i += 8u) {
    result = add_other(thread, i, result);
    result = add_other(thread, i + 1u, result);
    result = add_other(thread, i + 2u, result);
    result = add_other(thread, i + 3u, result);
    result = add_other(thread, i + 4u, result);
    result = add_other(thread, i + 5u, result);
    result = add_other(thread, i + 6u, result);
    result = add_other(thread, i + 7u, result);
  }
  return result;
}

fn add_other(thread: u32, i: u32, sums: vec4<f32>) -> vec4<f32> {
  return fma(vec4(factor_tile[TILE * i + slot_of(thread / 8u, i)]), other_tile[8u * i + thread % 8u], sums);
}
