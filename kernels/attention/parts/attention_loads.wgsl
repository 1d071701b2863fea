// needs: token_range cache_places cache_rows
// Bringing queries, keys and values into the workgroup memory of prefill_attention.wgsl, as f32: 16 x 8 threads, each a
// quad (four elements) of two keys and four queries. Loops are written out: an index that varies turns registers into
// memory.

// 32 keys x 32 elements from element 4 * first_quad on, zeros past the end of the head.
fn load_keys(place: Place, first_key: u32, first_quad: u32) {
  put_key(place.y, place.x, key_at(place, first_key + place.y, first_quad + place.x));
  put_key(place.y + 16u, place.x, key_at(place, first_key + place.y + 16u, first_quad + place.x));
}

fn put_key(key: u32, quad: u32, k: vec4<f32>) {
  cache_tile[4u * quad][key / 4u][key % 4u] = k.x;
  cache_tile[4u * quad + 1u][key / 4u][key % 4u] = k.y;
  cache_tile[4u * quad + 2u][key / 4u][key % 4u] = k.z;
  cache_tile[4u * quad + 3u][key / 4u][key % 4u] = k.w;
}

// 32 keys x 32 elements of the values.
fn load_values(place: Place, first_key: u32, first_quad: u32) {
  cache_tile[place.y][place.x] = value_at(place, first_key + place.y, first_quad + place.x);
  cache_tile[place.y + 16u][place.x] = value_at(place, first_key + place.y + 16u, first_quad + place.x);
}

// 64 queries x 32 elements.
fn load_queries(place: Place, first_quad: u32) {
  put_query(place.y, place.x, query_at(place, place.y, first_quad + place.x));
  put_query(place.y + 16u, place.x, query_at(place, place.y + 16u, first_quad + place.x));
  put_query(place.y + 32u, place.x, query_at(place, place.y + 32u, first_quad + place.x));
  put_query(place.y + 48u, place.x, query_at(place, place.y + 48u, first_quad + place.x));
}

fn put_query(query: u32, quad: u32, q: vec4<f32>) {
  query_tile[4u * quad][query / 4u][query % 4u] = q.x;
  query_tile[4u * quad + 1u][query / 4u][query % 4u] = q.y;
  query_tile[4u * quad + 2u][query / 4u][query % 4u] = q.z;
  query_tile[4u * quad + 3u][query / 4u][query % 4u] = q.w;
}

fn query_at(place: Place, query: u32, quad: u32) -> vec4<f32> {
  let quads = head_size / 4u;
  let token = place.first_token + min(place.first_query + query, place.tokens - 1u);
  let value = qkv[(token * (heads + 2u * key_value_heads) + place.head) * quads + min(quad, quads - 1u)];
  return select(vec4(0.0), value, quad < quads);
}

fn key_at(place: Place, key: u32, quad: u32) -> vec4<f32> {
  let head = cache_head(place);
  let token = cache_token(place, key);
  return quad_of(cached_key(head, token, eight_of(quad), cached_factors(head, token)), quad);
}

fn value_at(place: Place, key: u32, quad: u32) -> vec4<f32> {
  let head = cache_head(place);
  let token = cache_token(place, key);
  return quad_of(cached_value(head, token, eight_of(quad), 1u, cached_factors(head, token)), quad);
}

// First of eight elements that a quad is of; the last ones of the head stand for those past it.
fn eight_of(quad: u32) -> u32 {
  return min(quad / 2u * 8u, head_size - 8u);
}

fn quad_of(row: Row, quad: u32) -> vec4<f32> {
  let codes = select(low_codes(row), high_codes(row), quad % 2u == 1u);
  return select(vec4(0.0), (codes - CODE_OFFSET) * row_factor(row), quad < head_size / 4u);
}
