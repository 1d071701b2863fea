// 16-bit block fixed point, see pack_activations.ts for the planes and the error.
const LARGEST = 32512.0;
// Added to a float below 2^22, it leaves no bits for a fraction.
const ROUNDER = 12582912.0;
const ROUNDER_BITS = 0x4b400000;
// Bits of an infinite f32; those of a NaN are more.
const INFINITE_BITS = 0x7f800000u;
// Bits of 2^-100. Groups below it are packed as zeros, so that 1 / step is finite.
const LEAST_BITS = 0x0d800000u;

// Four channels of a group, as far as they make up one word of its high and one of its low bytes.
struct Quantized {
  hi: u32,
  lo: u32,
  // In units of the group's step.
  sum: f32,
}

// Bits of the largest magnitude. As integers they order as the floats do, and compilers, which may assume that no float
// is infinite or not a number, leave them alone.
fn largest_bits(values: vec4<f32>) -> u32 {
  let bits = bitcast<vec4<u32>>(values) & vec4(0x7fffffffu);
  return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// Step of a group, 0 where it isn't finite or next to nothing.
fn group_step(largest: u32) -> f32 {
  return select(0.0, bitcast<f32>(largest) * (1.0 / LARGEST), largest >= LEAST_BITS && largest < INFINITE_BITS);
}

// 512 times the step, as the kernels use it; NaN where the group isn't finite, so that no output hides it.
fn group_step512(largest: u32) -> f32 {
  return bitcast<f32>(select(0x7fc00000u, bitcast<u32>(512.0 * group_step(largest)), largest < INFINITE_BITS));
}

// Channels c, c + 4, c + 8, c + 12 of a group, in units of 1 (even c) or 4 (odd c) steps. Rounding by an addition leaves
// the integer in the float's bits: instructions that round or convert run at an eighth of the rate on NVIDIA.
fn quantize(values: vec4<f32>, step: f32, unit: f32) -> Quantized {
  let limit = vec4(LARGEST / unit);
  let inverse = select(0.0, 1.0 / (step * unit), step > 0.0);
  // The limit holds where the quotient was rounded the wrong way. What isn't finite becomes 0 here.
  let quotient = select(vec4(0.0), values * inverse, step > 0.0);
  let rounded = clamp(quotient, -limit, limit) + vec4(ROUNDER);
  let whole = bitcast<vec4<i32>>(rounded) - vec4(ROUNDER_BITS);
  // To the nearest, for all that whole can be: 65793 / 2^24 is 1 / 255.
  let high = (whole * 65793 + 8388608) >> vec4(24u);
  let low = whole - 255 * high;
  return Quantized(low_bytes(high), low_bytes(low), unit * f32(whole.x + whole.y + whole.z + whole.w));
}

fn low_bytes(v: vec4<i32>) -> u32 {
  let bits = bitcast<vec4<u32>>(v) & vec4(0xffu);
  return bits.x | (bits.y << 8u) | (bits.z << 16u) | (bits.w << 24u);
}

fn unit_of(channel: u32) -> f32 {
  return select(1.0, 4.0, channel % 2u == 1u);
}
