// needs: exchange
// Sums over lanes, on top of exchange().

// Sums over the lanes that differ in the bits from `first` to below `end`, both powers of two.
fn sum_strided(value: f32, thread: u32, first: u32, end: u32) -> f32 {
  var sum = value;
  if (first <= 1u && end > 1u) { sum += exchange(sum, thread, 1u); }
  if (first <= 2u && end > 2u) { sum += exchange(sum, thread, 2u); }
  if (first <= 4u && end > 4u) { sum += exchange(sum, thread, 4u); }
  if (first <= 8u && end > 8u) { sum += exchange(sum, thread, 8u); }
  if (first <= 16u && end > 16u) { sum += exchange(sum, thread, 16u); }
  if (first <= 32u && end > 32u) { sum += exchange(sum, thread, 32u); }
  if (first <= 64u && end > 64u) { sum += exchange(sum, thread, 64u); }
  return sum;
}

fn exchange_bits(bits: u32, thread: u32, distance: u32) -> u32 {
  return bitcast<u32>(exchange(bitcast<f32>(bits), thread, distance));
}

// The largest over four neighbouring lanes.
fn max_of_four(bits: u32, thread: u32) -> u32 {
  let pair = max(bits, exchange_bits(bits, thread, 1u));
  return max(pair, exchange_bits(pair, thread, 2u));
}
