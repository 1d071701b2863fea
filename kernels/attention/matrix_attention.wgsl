// needs: token_range cache_places cache_rows halves matrices fours
// The attention of prefill_attention.wgsl by subgroups that multiply matrices (tensor cores): factors f16, sums f32.
//
// Bindings are those of prefill_attention.wgsl.
//
// Mapping: a workgroup of four subgroups of 32 lanes takes 64 queries of a head, each subgroup 16, and 64 keys at a
// time. Sums in matrices can't be scaled row by row, so keys are walked twice: first for the largest score of each
// query, then for the weights relative to it and the output. For both, scores go through workgroup memory, where a lane
// has half of a query's. Queries stay in registers. Workgroups with the most keys come first. workgroup.z is the
// sequence.
override heads: u32 = 1;
override key_value_heads: u32 = 1;
override head_size: u32 = 8;
override capacity: u32 = 1;
override window: u32 = 0x7fffffff;
// Vectors of 8 elements: of a head, and with those of a whole matrix; the blocks that they take.
override head_vectors: u32 = head_size / 8u;
override whole_vectors: u32 = (head_size + 15u) / 16u * 2u;
override head_blocks: u32 = (head_size + 31u) / 32u;
override tile_blocks: u32 = 4u * head_blocks;

@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> keys: array<CacheVector>;
@group(0) @binding(3) var<storage, read> values: array<CacheVector>;
@group(0) @binding(4) var<storage, read_write> out: array<Four>;

// Lower than any score, yet far from overflow when two are subtracted.
const LOWEST = -1e38;
const THREADS = 128u;
// Rows of scores have a few more columns than they need, for other memory banks.
const SCORE_STRIDE = 68u;

// Of 16 queries, 16 elements of the head each. Written out, never indexed by a loop: registers would become memory.
alias Queries = array<Left, 8>;
alias Sums = array<Sum, 8>;

// [16 queries or keys][32 elements]: blocks
var<workgroup> tile: array<Block, tile_blocks>;
// [query][key], or matrices of sums on their way out
var<workgroup> scores: array<f32, 4352>;
// [16 queries][32 keys]: blocks
var<workgroup> weight_tile: array<Block, 8>;

// Who works on what.
struct Place {
  thread: u32,
  head: u32,
  // Of the tile, counted in its sequence.
  first_query: u32,
  // The sequence among those of the range, its first token there, and its tokens.
  sequence: u32,
  first_token: u32,
  tokens: u32,
  // Positions below this are seen by some query of the tile.
  end_key: u32,
  // First query of the subgroup in the tile.
  own: u32,
  // The lane's query in the tile, and the first of its 32 keys.
  query: u32,
  first: u32,
}

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let first_query = (count.y - 1u - workgroup.y) * 64u;
  let first_token = workgroup.z * range.sequence_tokens;
  if (first_token + first_query >= range.tokens) { return; }
  let tokens = min(range.sequence_tokens, range.tokens - first_token);
  let end_key = range.first_position + min(first_query + 64u, tokens);
  let place = Place(
    thread,
    workgroup.x,
    first_query,
    workgroup.z,
    first_token,
    tokens,
    end_key,
    thread / 32u * 16u,
    thread / 2u,
    thread % 2u * 32u,
  );
  let first_seen = (max(range.first_position + first_query + 1u, window) - window) / 64u * 64u;
  load_queries(place);
  workgroupBarrier();
  var queries: Queries;
  queries[0] = query_matrix(place, 0u);
  if (head_vectors > 2u) { queries[1] = query_matrix(place, 1u); }
  if (head_vectors > 4u) { queries[2] = query_matrix(place, 2u); }
  if (head_vectors > 6u) { queries[3] = query_matrix(place, 3u); }
  if (head_vectors > 8u) { queries[4] = query_matrix(place, 4u); }
  if (head_vectors > 10u) { queries[5] = query_matrix(place, 5u); }
  if (head_vectors > 12u) { queries[6] = query_matrix(place, 6u); }
  if (head_vectors > 14u) { queries[7] = query_matrix(place, 7u); }
  var largest = LOWEST;
  for (var first_key = first_seen; first_key < end_key; first_key += 64u) {
    score(place, first_key, &queries);
    for (var i = 0u; i < 32u; i += 4u) {
      let four = scores_at(place, first_key, i);
      largest = max(largest, max(max(four.x, four.y), max(four.z, four.w)));
    }
  }
  largest = max(largest, of_other_half(place, largest));
  var total = 0.0;
  var sums: Sums;
  for (var first_key = first_seen; first_key < end_key; first_key += 64u) {
    score(place, first_key, &queries);
    total += weigh(place, first_key, largest);
    workgroupBarrier();
    load_values(place, first_key);
    workgroupBarrier();
    add_values(place, 0u, &sums);
    add_values(place, 16u, &sums);
    add_values(place, 32u, &sums);
    add_values(place, 48u, &sums);
  }
  let factor = 1.0 / (total + of_other_half(place, total));
  write_output(place, 0u, factor, sums[0]);
  if (head_vectors > 2u) { write_output(place, 1u, factor, sums[1]); }
  if (head_vectors > 4u) { write_output(place, 2u, factor, sums[2]); }
  if (head_vectors > 6u) { write_output(place, 3u, factor, sums[3]); }
  if (head_vectors > 8u) { write_output(place, 4u, factor, sums[4]); }
  if (head_vectors > 10u) { write_output(place, 5u, factor, sums[5]); }
  if (head_vectors > 12u) { write_output(place, 6u, factor, sums[6]); }
  if (head_vectors > 14u) { write_output(place, 7u, factor, sums[7]); }
}

// 16 elements of the subgroup's queries; of 16 keys, transposed; of 16 values.
fn query_matrix(place: Place, i: u32) -> Left {
  let block = place.own / 16u * head_blocks + i / 2u;
  if (i % 2u == 1u) { return subgroupMatrixLoad<Left, row_major>(&tile[block], 2u, STRIDE); }
  return subgroupMatrixLoad<Left, row_major>(&tile[block], 0u, STRIDE);
}

fn key_matrix(key: u32, i: u32) -> Right {
  let block = key / 16u * head_blocks + i / 2u;
  if (i % 2u == 1u) { return subgroupMatrixLoad<Right, col_major>(&tile[block], 2u, STRIDE); }
  return subgroupMatrixLoad<Right, col_major>(&tile[block], 0u, STRIDE);
}

fn value_matrix(key: u32, i: u32) -> Right {
  let block = key / 16u * head_blocks + i / 2u;
  if (i % 2u == 1u) { return subgroupMatrixLoad<Right, row_major>(&tile[block], 2u, STRIDE); }
  return subgroupMatrixLoad<Right, row_major>(&tile[block], 0u, STRIDE);
}

// Weights of 16 keys.
fn weight_matrix(place: Place, key: u32) -> Left {
  let block = place.own / 8u + key / 32u;
  if (key % 32u == 16u) { return subgroupMatrixLoad<Left, row_major>(&weight_tile[block], 2u, STRIDE); }
  return subgroupMatrixLoad<Left, row_major>(&weight_tile[block], 0u, STRIDE);
}

// Puts the subgroup's scores of 64 keys into workgroup memory.
fn score(place: Place, first_key: u32, queries: ptr<function, Queries>) {
  workgroupBarrier();
  load_keys(place, first_key);
  workgroupBarrier();
  score_keys(place, 0u, queries);
  score_keys(place, 16u, queries);
  score_keys(place, 32u, queries);
  score_keys(place, 48u, queries);
  workgroupBarrier();
}

fn score_keys(place: Place, key: u32, queries: ptr<function, Queries>) {
  var sum: Sum;
  sum = subgroupMatrixMultiplyAccumulate((*queries)[0], key_matrix(key, 0u), sum);
  if (head_vectors > 2u) { sum = subgroupMatrixMultiplyAccumulate((*queries)[1], key_matrix(key, 1u), sum); }
  if (head_vectors > 4u) { sum = subgroupMatrixMultiplyAccumulate((*queries)[2], key_matrix(key, 2u), sum); }
  if (head_vectors > 6u) { sum = subgroupMatrixMultiplyAccumulate((*queries)[3], key_matrix(key, 3u), sum); }
  if (head_vectors > 8u) { sum = subgroupMatrixMultiplyAccumulate((*queries)[4], key_matrix(key, 4u), sum); }
  if (head_vectors > 10u) { sum = subgroupMatrixMultiplyAccumulate((*queries)[5], key_matrix(key, 5u), sum); }
  if (head_vectors > 12u) { sum = subgroupMatrixMultiplyAccumulate((*queries)[6], key_matrix(key, 6u), sum); }
  if (head_vectors > 14u) { sum = subgroupMatrixMultiplyAccumulate((*queries)[7], key_matrix(key, 7u), sum); }
  subgroupMatrixStore<row_major>(&scores, place.own * SCORE_STRIDE + key, sum, SCORE_STRIDE);
}

// Adds 16 values with their weights.
fn add_values(place: Place, key: u32, sums: ptr<function, Sums>) {
  let weights = weight_matrix(place, key);
  (*sums)[0] = add_value(weights, key, 0u, (*sums)[0]);
  if (head_vectors > 2u) { (*sums)[1] = add_value(weights, key, 1u, (*sums)[1]); }
  if (head_vectors > 4u) { (*sums)[2] = add_value(weights, key, 2u, (*sums)[2]); }
  if (head_vectors > 6u) { (*sums)[3] = add_value(weights, key, 3u, (*sums)[3]); }
  if (head_vectors > 8u) { (*sums)[4] = add_value(weights, key, 4u, (*sums)[4]); }
  if (head_vectors > 10u) { (*sums)[5] = add_value(weights, key, 5u, (*sums)[5]); }
  if (head_vectors > 12u) { (*sums)[6] = add_value(weights, key, 6u, (*sums)[6]); }
  if (head_vectors > 14u) { (*sums)[7] = add_value(weights, key, 7u, (*sums)[7]); }
}

fn add_value(weights: Left, key: u32, i: u32, sum: Sum) -> Sum {
  return subgroupMatrixMultiplyAccumulate(weights, value_matrix(key, i), sum);
}

// Scores of the lane's query with four of its keys; those that it doesn't see are LOWEST.
fn scores_at(place: Place, first_key: u32, i: u32) -> vec4<f32> {
  let at = place.query * SCORE_STRIDE + place.first + i;
  let four = vec4(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
  let position = range.first_position + place.first_query + place.query;
  let key = vec4(first_key + place.first + i) + vec4(0u, 1u, 2u, 3u);
  let is_seen = (key <= vec4(position)) & (vec4(position) < key + window) & (key < vec4(place.end_key));
  return select(vec4(LOWEST), four, is_seen);
}

// Puts weights relative to `largest` into workgroup memory and returns the sum of the lane's, as they are there. A
// query past the last token may see no key.
fn weigh(place: Place, first_key: u32, largest: f32) -> f32 {
  var sum = 0.0;
  for (var i = 0u; i < 32u; i += 8u) {
    let low = scores_at(place, first_key, i);
    let high = scores_at(place, first_key, i + 4u);
    let words = halves_of(
      select(exp(low - largest), vec4(0.0), low == vec4(LOWEST)),
      select(exp(high - largest), vec4(0.0), high == vec4(LOWEST)),
    );
    let key = place.first + i;
    weight_tile[place.query / 16u * 2u + key / 32u][place_in_block(place.query, key / 8u)] = words;
    let pairs = unpack2x16float(words.x) + unpack2x16float(words.y) + unpack2x16float(words.z) +
      unpack2x16float(words.w);
    sum += pairs.x + pairs.y;
  }
  return sum;
}

// The value of the lane that has the other half of the query's keys.
fn of_other_half(place: Place, value: f32) -> f32 {
  workgroupBarrier();
  scores[place.thread] = value;
  workgroupBarrier();
  return scores[place.thread ^ 1u];
}

// 64 queries with the factor of their scores.
fn load_queries(place: Place) {
  let scale = 1.0 / sqrt(f32(head_size));
  for (var at = place.thread; at < 64u * whole_vectors; at += THREADS) {
    let token = place.first_token + min(place.first_query + at / whole_vectors, place.tokens - 1u);
    let vector = at % whole_vectors;
    let row = token * (heads + 2u * key_value_heads) + place.head;
    let source = (row * head_vectors + min(vector, head_vectors - 1u)) * 2u;
    let words = halves_of(scale * qkv[source], scale * qkv[source + 1u]);
    put_vector(at / whole_vectors, vector, words);
  }
}

fn load_keys(place: Place, first_key: u32) {
  let head = cache_head(place);
  for (var at = place.thread; at < 64u * whole_vectors; at += THREADS) {
    let token = cache_token(place, first_key + at / whole_vectors);
    let row = cached_key(head, token, eight_of(at), cached_factors(head, token));
    put_vector(at / whole_vectors, at % whole_vectors, row_halves(row));
  }
}

fn load_values(place: Place, first_key: u32) {
  let head = cache_head(place);
  for (var at = place.thread; at < 64u * whole_vectors; at += THREADS) {
    let token = cache_token(place, first_key + at / whole_vectors);
    let row = cached_value(head, token, eight_of(at), 1u, cached_factors(head, token));
    put_vector(at / whole_vectors, at % whole_vectors, row_halves(row));
  }
}

// Zeros past the end of the head.
fn put_vector(row: u32, vector: u32, words: vec4<u32>) {
  let block = row / 16u * head_blocks + vector / 4u;
  tile[block][place_in_block(row, vector)] = select(vec4(0u), words, vector < head_vectors);
}

// First element of one of the whole vectors; the last vector of the head stands for those past it.
fn eight_of(at: u32) -> u32 {
  return 8u * min(at % whole_vectors, head_vectors - 1u);
}

// 16 elements of the output; a lane half of its query's.
fn write_output(place: Place, i: u32, factor: f32, sum: Sum) {
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&scores, place.own * SCORE_STRIDE, sum, SCORE_STRIDE);
  workgroupBarrier();
  let query = place.first_query + place.query;
  let vector = 2u * i + place.first / 32u;
  if (query >= place.tokens || vector >= head_vectors) { return; }
  let at = place.query * SCORE_STRIDE + place.first / 4u;
  let target_at = (((place.first_token + query) * heads + place.head) * head_vectors + vector) * 2u;
  out[target_at] = four_of(factor * vec4(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]));
  out[target_at + 1u] = four_of(factor * vec4(scores[at + 4u], scores[at + 5u], scores[at + 6u], scores[at + 7u]));
}
