// needs: attention_tiles
// Second half of attention's gradients: those of the rotated keys and of the values, from what the first half left.
//
//   dv[j] = sum over i of p[i, j] dout[i];  dk[j] = sum over i of ds[i, j] q[i] / sqrt(head_size)
//
// over the queries i >= j that see key j, of all heads that the key serves; p and ds as in
// attention_query_backward.wgsl.
//
// Bindings: those of backward/parts/attention_tiles.wgsl
//
// Mapping: a workgroup of 256 threads 32 keys and 64 elements of a head of a window (z), 32 queries at a time.

// Who works on what.
struct Place {
  thread: u32,
  window_index: u32,
  // Head of the keys and values, and of the queries.
  group: u32,
  head: u32,
  first_key: u32,
  // Of the elements whose gradients it makes.
  first_quad: u32,
}

// Gradients of keys and of values: four elements of a run of 32.
struct Gradients {
  key: vec4<f32>,
  value: vec4<f32>,
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_key = TILE * workgroup.x;
  if (first_key >= range.tokens) { return; }
  let group = workgroup.y / parts();
  let first_quad = PART_QUADS * (workgroup.y % parts());
  let second = first_quad + RUN_QUADS < head_size / 4u;
  // The last key of the tile is seen by queries before this.
  let end_query = select(range.tokens, first_key + TILE - 1u + window, window < range.tokens);
  let served = heads / key_value_heads;
  var low: Gradients;
  var high: Gradients;
  for (var head = group * served; head < (group + 1u) * served; head++) {
    let place = Place(thread, workgroup.z, group, head, first_key, first_quad);
    for (var query = first_key; query < min(end_query, range.tokens); query += TILE) {
      let shares = shares_of(place, query);
      put_factors(thread, shares);
      low.value = add_outs(place, query, 0u, low.value);
      if (second) { high.value = add_outs(place, query, RUN_QUADS, high.value); }
      put_factors(thread, shares * (out_products(place, query) - statistics_of(place, query, 1u)));
      low.key = add_queries(place, query, 0u, low.key);
      if (second) { high.key = add_queries(place, query, RUN_QUADS, high.key); }
    }
  }
  let place = Place(thread, workgroup.z, group, 0u, first_key, first_quad);
  write_gradients(place, 0u, low);
  if (second) { write_gradients(place, RUN_QUADS, high); }
}

// p of the thread's key and its four queries of a tile.
fn shares_of(place: Place, first_query: u32) -> vec4<f32> {
  let token = place.thread / 8u;
  var sums = vec4(0.0);
  for (var quad = 0u; quad < head_size / 4u; quad += RUN_QUADS) {
    let at = quad + place.thread % 8u;
    put_products(
      place.thread,
      key_at(place.window_index, place.group, place.first_key + token, at),
      query_at(place.window_index, place.head, first_query + token, at),
    );
    sums = add_products(place.thread, sums);
  }
  let key = place.first_key + token;
  let query = first_query + 4u * (place.thread % 8u);
  let seen = vec4(is_seen(query, key), is_seen(query + 1u, key), is_seen(query + 2u, key), is_seen(query + 3u, key));
  // What a query doesn't see may have any score.
  let logs = min(sums / sqrt(f32(head_size)) - statistics_of(place, first_query, 0u), vec4(0.0));
  return select(vec4(0.0), exp(logs), seen);
}

// dout . v of the thread's key and its four queries of a tile.
fn out_products(place: Place, first_query: u32) -> vec4<f32> {
  let token = place.thread / 8u;
  var sums = vec4(0.0);
  for (var quad = 0u; quad < head_size / 4u; quad += RUN_QUADS) {
    let at = quad + place.thread % 8u;
    put_products(
      place.thread,
      value_at(place.window_index, place.group, place.first_key + token, at),
      out_gradient_at(place.window_index, place.head, first_query + token, at),
    );
    sums = add_products(place.thread, sums);
  }
  return sums;
}

// One of the statistics of the thread's four queries of a tile.
fn statistics_of(place: Place, first_query: u32, which: u32) -> vec4<f32> {
  let first = (place.window_index * heads + place.head) * range.tokens;
  let query = first_query + 4u * (place.thread % 8u);
  let last = range.tokens - 1u;
  return vec4(
    statistics[first + min(query, last)][which],
    statistics[first + min(query + 1u, last)][which],
    statistics[first + min(query + 2u, last)][which],
    statistics[first + min(query + 3u, last)][which],
  );
}

fn add_outs(place: Place, first_query: u32, run: u32, sums: vec4<f32>) -> vec4<f32> {
  let query = first_query + place.thread / 8u;
  let other = out_gradient_at(place.window_index, place.head, query, place.first_quad + run + place.thread % 8u);
  return add_weighted(place.thread, other, sums);
}

fn add_queries(place: Place, first_query: u32, run: u32, sums: vec4<f32>) -> vec4<f32> {
  let query = first_query + place.thread / 8u;
  let other = query_at(place.window_index, place.head, query, place.first_quad + run + place.thread % 8u);
  return add_weighted(place.thread, other, sums);
}

fn write_gradients(place: Place, run: u32, sums: Gradients) {
  let key = place.first_key + place.thread / 8u;
  let quads = head_size / 4u;
  let quad = place.first_quad + run + place.thread % 8u;
  if (key >= range.tokens || quad >= quads) { return; }
  let row = (place.window_index * range.tokens + key) * (heads + 2u * key_value_heads) + heads + place.group;
  qkv_gradient[row * quads + quad] = sums.key / sqrt(f32(head_size));
  qkv_gradient[(row + key_value_heads) * quads + quad] = sums.value;
}
