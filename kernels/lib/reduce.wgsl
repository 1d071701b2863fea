// Sums over lanes, on top of exchange().

// Returns in lane i the sum of component i % 4 over a team of lanes: half of the values are handed over at each of
// the first two exchanges, so that four sums cost six exchanges and not twenty.
fn sum_rows(v: vec4<f32>, thread: u32) -> f32 {
  let odd = (thread & 1u) == 1u;
  let a = select(v.x, v.y, odd) + exchange(select(v.y, v.x, odd), thread, 1u);
  let b = select(v.z, v.w, odd) + exchange(select(v.w, v.z, odd), thread, 1u);
  let high = (thread & 2u) == 2u;
  let sum = select(a, b, high) + exchange(select(b, a, high), thread, 2u);
  return sum_strided(sum, thread, 4u, team);
}

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
