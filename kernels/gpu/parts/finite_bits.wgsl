// The largest magnitude of some values that share a scale, as bits.
// Bits of an infinite f32; those of a NaN are more.
const INFINITE_BITS = 0x7f800000u;
// Bits of 2^-100. Values below it are packed as zeros, so that 1 / step is finite.
const LEAST_BITS = 0x0d800000u;

// Bits of the largest magnitude. As integers they order as the floats do, and compilers, which may assume that no float
// is infinite or not a number, leave them alone.
fn largest_bits(values: vec4<f32>) -> u32 {
  let bits = bitcast<vec4<u32>>(values) & vec4(0x7fffffffu);
  return max(max(bits.x, bits.y), max(bits.z, bits.w));
}
