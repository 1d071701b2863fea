// needs: halves
// is: cache_rows
// Keys and values in f16. A row is what the cache has of one token in one head; a kernel binds them as
//
//   keys, values   vec4<u32> [heads of the cache, capacity, head_size / 8]   8 f16 each
alias CacheVector = vec4<u32>;

// Eight channels of a row, or the first of them.
struct Row { words: vec4<u32> }

// What is in a row are codes: a channel is (code - CODE_OFFSET) * row_factor().
const CODE_OFFSET = 0.0;
const HAS_FACTORS = false;
// Turns of tokens whose loads are on their way.
const TURNS_AHEAD = 2u;

fn cached_factors(head: u32, token: u32) -> vec2<f32> {
  return vec2(1.0);
}

fn cached_key(head: u32, token: u32, channel: u32, factors: vec2<f32>) -> Row {
  return Row(keys[key_vectors(head) + token * (head_size / 8u) + channel / 8u]);
}

// From a channel on 8 / shares of them.
fn cached_value(head: u32, token: u32, channel: u32, shares: u32, factors: vec2<f32>) -> Row {
  let at = (head * capacity + token) * (head_size / 8u) + channel / 8u;
  if (shares == 1u) { return Row(values[at]); }
  let word = channel / 2u % 4u;
  var words = vec4(values[at][word], 0u, 0u, 0u);
  if (shares == 2u) { words.y = values[at][word + 1u]; }
  return Row(words);
}

// Where the keys of a head begin.
fn key_vectors(head: u32) -> u32 {
  return head * capacity * (head_size / 8u);
}

fn factors_at(head: u32, token: u32) -> u32 {
  return 0u;
}

// A row of which the largest magnitude has these bits.
fn row_of(low: vec4<f32>, high: vec4<f32>, largest: u32) -> Row {
  return Row(halves_of(low, high));
}

fn low_codes(row: Row) -> vec4<f32> {
  return low_half(row.words);
}

fn high_codes(row: Row) -> vec4<f32> {
  return high_half(row.words);
}

fn row_factor(row: Row) -> f32 {
  return 1.0;
}

fn row_halves(row: Row) -> vec4<u32> {
  return row.words;
}
