// needs: attention_tiles
// First half of attention's gradients: those of the rotated queries, and what the other half needs of each query.
//
//   p[i, j] = exp(score[i, j] - l[i]), score[i, j] = q[i] . k[j] / sqrt(head_size), l[i] = log of the sum of exp(score)
//   ds[i, j] = p[i, j] (dout[i] . v[j] - dout[i] . out[i]);  dq[i] = sum over j of ds[i, j] k[j] / sqrt(head_size)
//
// over the keys j <= i, with a window the last `window` of them. Scores are made again tile by tile, so that nothing is
// ever as large as tokens x tokens.
//
// Bindings: those of backward/parts/attention_tiles.wgsl, and
//   7 out  vec4<f32> [W, T, heads, D]
//
// Mapping: a workgroup of 256 threads 32 queries and 64 elements of a head of a window (z), 32 keys at a time.
@group(0) @binding(7) var<storage, read> out: array<vec4<f32>>;

// Lower than any score, yet far from overflow when two are subtracted.
const LOWEST = -1e38;

const OWN_ARE_KEYS = false;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_query = TILE * workgroup.x;
  if (first_query >= range.tokens) { return; }
  let head = workgroup.y / parts();
  let first_quad = PART_QUADS * (workgroup.y % parts());
  let place = Place(thread, workgroup.z, head, head / (heads / key_value_heads), first_query, first_quad);
  let end_key = min(first_query + TILE, range.tokens);
  let first_key = (max(first_query + 1u, window) - window) / TILE * TILE;
  var largest = LOWEST;
  var total = 0.0;
  for (var key = first_key; key < end_key; key += TILE) {
    let scores = scores_of(place, key);
    let before = largest;
    largest = max(largest, max(max(scores.x, scores.y), max(scores.z, scores.w)));
    let shares = select(vec4(0.0), exp(scores - largest), scores > vec4(LOWEST));
    total = total * exp(before - largest) + dot(shares, vec4(1.0));
  }
  let statistic = finish_statistics(place, largest, total);
  let second = first_quad + RUN_QUADS < head_size / 4u;
  var low = vec4(0.0);
  var high = vec4(0.0);
  for (var key = first_key; key < end_key; key += TILE) {
    let scores = scores_of(place, key);
    let shares = select(vec4(0.0), exp(scores - statistic.x), scores > vec4(LOWEST));
    put_own(thread, shares * (products_of(place, key, true) - statistic.y));
    low = add_keys(place, key, 0u, low);
    if (second) { high = add_keys(place, key, RUN_QUADS, high); }
  }
  write_gradient(place, 0u, low);
  if (second) { write_gradient(place, RUN_QUADS, high); }
}

// Scores of the thread's query with its four keys of a tile; those that it doesn't see are LOWEST.
fn scores_of(place: Place, first_key: u32) -> vec4<f32> {
  let scores = products_of(place, first_key, false) / sqrt(f32(head_size));
  return select(vec4(LOWEST), scores, seen_of(place, first_key));
}

fn add_keys(place: Place, first_key: u32, run: u32, sums: vec4<f32>) -> vec4<f32> {
  let key = key_at(place, first_key + place.thread / 8u, place.first_quad + run + place.thread % 8u);
  return add_weighted(place.thread, key, sums);
}

// Joins what the 8 threads of a query found: log of the sum of exp(score), and dout . out.
fn finish_statistics(place: Place, largest: f32, total: f32) -> vec2<f32> {
  let query = place.first_own + place.thread / 8u;
  let quads = head_size / 4u;
  let row = place.window_index * range.tokens + min(query, range.tokens - 1u);
  var products = 0.0;
  for (var quad = place.thread % 8u; quad < quads; quad += RUN_QUADS) {
    let at = (row * heads + place.head) * quads + quad;
    products += dot(out[at], out_gradient[at]);
  }
  workgroupBarrier();
  other_tile[place.thread] = vec4(largest, total, products, 0.0);
  workgroupBarrier();
  let first = place.thread / 8u * 8u;
  var joined = LOWEST;
  for (var i = 0u; i < 8u; i++) { joined = max(joined, other_tile[first + i].x); }
  var sums = vec2(0.0);
  for (var i = 0u; i < 8u; i++) {
    let found = other_tile[first + i];
    sums += vec2(found.y * exp(found.x - joined), found.z);
  }
  let statistic = vec2(joined + log(sums.x), sums.y);
  if (place.thread % 8u == 0u && place.first_quad == 0u && query < range.tokens) {
    statistics[(place.window_index * heads + place.head) * range.tokens + query] = statistic;
  }
  return statistic;
}

fn write_gradient(place: Place, run: u32, sums: vec4<f32>) {
  let query = place.first_own + place.thread / 8u;
  let quads = head_size / 4u;
  let quad = place.first_quad + run + place.thread % 8u;
  if (query >= range.tokens || quad >= quads) { return; }
  let row = place.window_index * range.tokens + query;
  qkv_gradient[(row * (heads + 2u * key_value_heads) + place.head) * quads + quad] = sums / sqrt(f32(head_size));
}
