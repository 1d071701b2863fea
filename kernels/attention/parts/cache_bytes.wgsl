// needs: halves finite_bits
// is: cache_rows
// Keys and values in 8 bits: multiples of a step, which is 1/127 of the row's largest magnitude. A row is what the cache
// has of one token in one head; a kernel binds them as
//
//   keys     vec2<u32> [heads of the cache, capacity * (head_size / 8 + 1)]   [capacity, head_size / 8] bytes, which are
//                128 + x / step to the nearest; then [capacity] the factors of key and value, f32: 256 steps, NaN where
//                a channel isn't finite
//   values   vec2<u32> [heads of the cache, capacity, head_size / 8]          bytes
alias CacheVector = vec2<u32>;

// Eight channels of a row, or the first of them.
struct Row { words: vec2<u32>, factor: f32 }

// What is in a row are codes: a channel is (code - CODE_OFFSET) * row_factor(). NVIDIA converts bytes at an eighth of the
// rate, and has half as many lanes for integers as for floats; so two bytes at once become the first eight bits of the
// mantissas of 1 in f16: a code is 1 + byte / 256.
const CODE_OFFSET = 1.5;
const HAS_FACTORS = true;
// Turns of tokens whose loads are on their way: half the bytes of f16, so more of them.
const TURNS_AHEAD = 3u;
// Added to a float below 2^22, it leaves the nearest integer, and 128, in its low bits.
const BYTE_ROUNDER = 12583040.0;

// Of a token's key and value.
fn cached_factors(head: u32, token: u32) -> vec2<f32> {
  return bitcast<vec2<f32>>(keys[factors_at(head, token)]);
}

fn cached_key(head: u32, token: u32, channel: u32, factors: vec2<f32>) -> Row {
  return Row(keys[key_vectors(head) + token * (head_size / 8u) + channel / 8u], factors.x);
}

// From a channel on 8 / shares of them.
fn cached_value(head: u32, token: u32, channel: u32, shares: u32, factors: vec2<f32>) -> Row {
  let at = (head * capacity + token) * (head_size / 8u) + channel / 8u;
  if (shares == 1u) { return Row(values[at], factors.y); }
  return Row(vec2(values[at][channel / 4u % 2u] >> (8u * (channel % 4u)), 0u), factors.y);
}

// Where the keys of a head begin.
fn key_vectors(head: u32) -> u32 {
  return head * capacity * (head_size / 8u + 1u);
}

fn factors_at(head: u32, token: u32) -> u32 {
  return key_vectors(head) + capacity * (head_size / 8u) + token;
}

// A row of which the largest magnitude has these bits. One next to nothing is all zeros.
fn row_of(low: vec4<f32>, high: vec4<f32>, largest: u32) -> Row {
  let is_packed = largest >= LEAST_BITS && largest < INFINITE_BITS;
  let most = select(0.0, bitcast<f32>(largest), is_packed);
  let inverse = select(0.0, 127.0 / most, is_packed);
  let factor = select(0x7fc00000u, bitcast<u32>(most * (256.0 / 127.0)), largest < INFINITE_BITS);
  return Row(vec2(bytes_of(low * inverse), bytes_of(high * inverse)), bitcast<f32>(factor));
}

fn bytes_of(multiples: vec4<f32>) -> u32 {
  let bits = bitcast<vec4<u32>>(multiples + BYTE_ROUNDER) & vec4(0xffu);
  return bits.x | (bits.y << 8u) | (bits.z << 16u) | (bits.w << 24u);
}

fn low_codes(row: Row) -> vec4<f32> {
  return codes_of(row.words.x);
}

fn high_codes(row: Row) -> vec4<f32> {
  return codes_of(row.words.y);
}

fn codes_of(word: u32) -> vec4<f32> {
  let even = unpack2x16float(((word << 2u) & 0x03fc03fcu) | 0x3c003c00u);
  let odd = unpack2x16float(((word >> 6u) & 0x03fc03fcu) | 0x3c003c00u);
  return vec4(even.x, odd.x, even.y, odd.y);
}

fn row_factor(row: Row) -> f32 {
  return row.factor;
}

fn row_halves(row: Row) -> vec4<u32> {
  return halves_of((low_codes(row) - CODE_OFFSET) * row.factor, (high_codes(row) - CODE_OFFSET) * row.factor);
}
