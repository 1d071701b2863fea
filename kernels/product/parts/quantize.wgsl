// needs: decode finite_bits
// Block fixed point of 16 or 8 bits, see pack_activations.ts for the planes and the error.
// What the largest magnitude of a group becomes, in steps: of two bytes, and of one in units of 4.
const LARGEST = 32512.0;
const LARGEST_BYTE = 508.0;
// Added to a float below 2^22, it leaves no bits for a fraction.
const ROUNDER = 12582912.0;
// 4 * ROUNDER_BITS, where ROUNDER_BITS = 0x4b400000 are the bits of ROUNDER, and 2^23 - 65793 ROUNDER_BITS, modulo
// 2^32.
const FOUR_ROUNDERS = 754974720;
const HIGH_START = 1967128576;

// Four channels of a group, as far as they make up one word of its high and one of its low bytes.
struct Quantized {
  hi: u32,
  lo: u32,
  // In units of the group's step.
  sum: f32,
}

// Step of a group of which the largest magnitude becomes `most`, 0 where it isn't finite or next to nothing.
fn group_step(largest: u32, most: f32) -> f32 {
  return select(0.0, bitcast<f32>(largest) * (1.0 / most), largest >= LEAST_BITS && largest < INFINITE_BITS);
}

// 512 times the step, as the kernels use it; NaN where the group isn't finite, so that no output hides it.
fn group_step512(largest: u32, step: f32) -> f32 {
  return bitcast<f32>(select(0x7fc00000u, bitcast<u32>(512.0 * step), largest < INFINITE_BITS));
}

// Channels c, c + 4, c + 8, c + 12 of a group, in units of unit_of(c) steps. No instruction converts or
// rounds, which NVIDIA does at an eighth of the rate: an addition leaves the integer in a float's bits, and integer
// arithmetic modulo 2^32 goes on from there. What isn't finite leaves bytes without meaning under a step that is NaN.
fn quantize(values: vec4<f32>, step: f32, unit: f32) -> Quantized {
  let inverse = select(0.0, 1.0 / (step * unit), step > 0.0);
  // ROUNDER_BITS + x, where x is what is stored.
  let bits = bitcast<vec4<i32>>(fma(values, vec4(inverse), vec4(ROUNDER)));
  let sum = unit * f32(bits.x + bits.y + bits.z + bits.w - FOUR_ROUNDERS);
  if (activation_bits == 8u) { return Quantized(low_bytes(bits), 0u, sum); }
  // x / 255, to the nearest for all that x can be: 65793 / 2^24 is 1 / 255.
  let high = (bits * 65793 + HIGH_START) >> vec4(24u);
  // x - 255 high, of which only the low byte counts, where -255 is 1 and ROUNDER_BITS 0.
  let low = bits + high;
  return Quantized(low_bytes(high), low_bytes(low), sum);
}

fn low_bytes(v: vec4<i32>) -> u32 {
  let bits = bitcast<vec4<u32>>(v) & vec4(0xffu);
  return bits.x | (bits.y << 8u) | (bits.z << 16u) | (bits.w << 24u);
}
