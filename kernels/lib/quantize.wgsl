// 16-bit block fixed point, see pack_activations.ts for the planes and the error.
const LARGEST = 32512.0;
// Bits of an infinite f32; those of a NaN are more.
const INFINITE_BITS = 0x7f800000u;

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

// Step of a group, 0 where it isn't finite.
fn group_step(largest: u32) -> f32 {
  return select(0.0, bitcast<f32>(largest) / LARGEST, largest < INFINITE_BITS);
}

// 128 times the step, as the kernels use it; NaN where the group isn't finite, so that no output hides it.
fn group_step128(largest: u32) -> f32 {
  return bitcast<f32>(select(0x7fc00000u, bitcast<u32>(128.0 * group_step(largest)), largest < INFINITE_BITS));
}

// Channels c, c + 4, c + 8, c + 12 of a group, in units of 1 (even c) or 4 (odd c) steps.
fn quantize(values: vec4<f32>, step: f32, unit: f32) -> Quantized {
  // The limit holds where division rounded the wrong way; a step of 0 gives 0.
  let limit = vec4(LARGEST / unit);
  let quotient = select(vec4(0.0), values / vec4(step * unit), step > 0.0);
  let whole = clamp(round(quotient), -limit, limit);
  let high = round(whole / 255.0);
  let low = whole - 255.0 * high;
  return Quantized(pack4xI8(vec4<i32>(high)), pack4xI8(vec4<i32>(low)), unit * dot(whole, vec4(1.0)));
}

fn unit_of(channel: u32) -> f32 {
  return select(1.0, 4.0, channel % 2u == 1u);
}
