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

const OWN_ARE_KEYS = true;

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
    let place = Place(thread, workgroup.z, head, group, first_key, first_quad);
    for (var query = first_key; query < min(end_query, range.tokens); query += TILE) {
      let shares = shares_of(place, query);
      put_own(thread, shares);
      low.value = add_outs(place, query, 0u, low.value);
      if (second) { high.value = add_outs(place, query, RUN_QUADS, high.value); }
      put_own(thread, shares * (products_of(place, query, true) - statistics_of(place, query, 1u)));
      low.key = add_queries(place, query, 0u, low.key);
      if (second) { high.key = add_queries(place, query, RUN_QUADS, high.key); }
    }
  }
  let place = Place(thread, workgroup.z, 0u, group, first_key, first_quad);
  write_gradients(place, 0u, low);
  if (second) { write_gradients(place, RUN_QUADS, high); }
}

// p of the thread's key and its four queries of a tile.
fn shares_of(place: Place, first_query: u32) -> vec4<f32> {
  let scores = products_of(place, first_query, false) / sqrt(f32(head_size));
  // What a query doesn't see may have any score.
  let logs = min(scores - statistics_of(place, first_query, 0u), vec4(0.0));
  return select(vec4(0.0), exp(logs), seen_of(place, first_query));
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
  let quad = place.first_quad + run + place.thread % 8u;
  return add_weighted(place.thread, out_gradient_at(place, first_query + place.thread / 8u, quad), sums);
}

fn add_queries(place: Place, first_query: u32, run: u32, sums: vec4<f32>) -> vec4<f32> {
  let quad = place.first_quad + run + place.thread % 8u;
  return add_weighted(place.thread, query_at(place, first_query + place.thread / 8u, quad), sums);
}

fn write_gradients(place: Place, run: u32, sums: Gradients) {
  let key = place.first_own + place.thread / 8u;
  let quads = head_size / 4u;
  let quad = place.first_quad + run + place.thread % 8u;
  if (key >= range.tokens || quad >= quads) { return; }
  let row = (place.window_index * range.tokens + key) * (heads + 2u * key_value_heads) + heads + place.group;
  qkv_gradient[row * quads + quad] = sums.key / sqrt(f32(head_size));
  qkv_gradient[(row + key_value_heads) * quads + quad] = sums.value;
}
