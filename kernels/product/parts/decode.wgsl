// Decoding shared by the kernels that multiply packed weights with packed activations.
//
// A base or refine word holds the 2-bit codes of 16 channels, channel c at bits 2c, 2c+1. Masking with 0x03030303
// puts the codes of channels 0, 4, 8, 12 into the four bytes of a word, ready for a 4 x 8-bit dot product; masking
// with 0x0c0c0c0c does it for channels 1, 5, 9, 13, four times too large, which activations of odd channels, stored
// in units four times larger, undo. One shift by 4 brings the other eight channels into place.
//
// No integer is converted to float by an instruction: conversions run at an eighth of the FMA rate on NVIDIA.
// Integers are or-ed or added into the mantissa of a constant instead.

// An activation is two bytes, x = 255 hi + lo, or with activation_bits = 8 one, x = 4 hi; x is in steps of its group.
override activation_bits: u32 = 16;

// What `without` leaves out to measure what it costs (experiment dequant_share): the sum
// of 1 second-order scales, 2 first-order dequantization (codes and zeros), 4 the multiplication. The rest is kept
// alive.
override without: u32 = 0;
const SECOND_ORDER = 1u;
const FIRST_ORDER = 2u;
const MULTIPLICATION = 4u;

// An f32 whose mantissa counts in ones: as bits + n it is the float 12582912 + n, for |n| < 2^22.
const MAGIC_BITS = 0x4b400000;
const MAGIC = 12582912.0;

// sum(code * x) + MAGIC over one group, exact. hi and lo are the bytes of the group's packed activations; component j
// serves the channels c = 4i + j. Why 255: by 256 the compiler makes a shift, which goes to the integer pipe that the
// masks already fill; a multiply-add goes elsewhere. Of single bytes codes of odd channels are four times too large, as
// the step asks for, and those of even ones aren't yet.
fn dot_codes(word: u32, hi: vec4<u32>, lo: vec4<u32>) -> f32 {
  var even = word & 0x03030303u;
  var odd = word & 0x0c0c0c0cu;
  let high = word >> 4u;
  var high_even = high & 0x03030303u;
  var high_odd = high & 0x0c0c0c0cu;
  if ((without & FIRST_ORDER) != 0u) {
    even = word;
    odd = word;
    high_even = word;
    high_odd = word;
  }
  if ((without & MULTIPLICATION) != 0u) {
    // Rotated, since without codes the four are equal and would cancel.
    let all = even ^ (odd << 1u) ^ (high_even << 2u) ^ (high_odd << 3u) ^ hi.x ^ lo.x;
    return bitcast<f32>((all & 0x007fffffu) | 0x4b000000u);
  }
  if (activation_bits == 8u) {
    let evens = dot4I8Packed(even, hi.x) + dot4I8Packed(high_even, hi.z);
    return bitcast<f32>(evens * 4 + MAGIC_BITS + dot4I8Packed(odd, hi.y) + dot4I8Packed(high_odd, hi.w));
  }
  let upper = dot4I8Packed(even, hi.x) + dot4I8Packed(odd, hi.y) + dot4I8Packed(high_even, hi.z) +
    dot4I8Packed(high_odd, hi.w);
  let lower = upper * 255 + MAGIC_BITS + dot4I8Packed(even, lo.x) + dot4I8Packed(odd, lo.y) +
    dot4I8Packed(high_even, lo.z) + dot4I8Packed(high_odd, lo.w);
  return bitcast<f32>(lower);
}

// The value of a channel's bytes, in steps.
fn value_of_bytes(hi: i32, lo: i32, channel: u32) -> f32 {
  return f32(select(255 * hi + lo, hi, activation_bits == 8u)) * unit_of(channel);
}

// Steps that an integer of a channel counts in, see pack_activations.ts.
fn unit_of(channel: u32) -> f32 {
  return select(1.0, 4.0, channel % 2u == 1u || activation_bits == 8u);
}

// Masks of the scale and zero codes where align_codes leaves them. They are made from a workgroup index that is
// always 0: as plain constants the compiler would spend two instructions on (codes & mask) | exponent, for want of
// room for two constants in one.
struct CodeMasks {
  scale: u32,
  zero: u32,
}

fn code_masks(always_zero: u32) -> CodeMasks {
  return CodeMasks(0x0003c000u + always_zero, 0x001c0000u + always_zero);
}

// The codes of group i of a meta word, moved to where they lie for group 2: scaleCode at bits 14..17, zeroCode at bits
// 18..20.
fn align_codes(meta_word: u32, i: u32) -> u32 {
  return (meta_word >> (7u * i)) << 14u;
}

// scaleCode * scale, given scale512 = 512 scale.
fn scale_of(codes: u32, masks: CodeMasks, scale512: f32) -> f32 {
  if ((without & SECOND_ORDER) != 0u) { return scale512; }
  return fma(bitcast<f32>((codes & masks.scale) | 0x3f800000u), scale512, -scale512);
}

// 8 + zeroCode / 4; the zero of a 2-bit group is ZERO_PLUS less.
fn zero_plus(codes: u32, masks: CodeMasks) -> f32 {
  if ((without & FIRST_ORDER) != 0u) { return 8.0; }
  return bitcast<f32>((codes & masks.zero) | 0x41000000u);
}
const ZERO_PLUS = 7.375;

// words[i], without the branches that an index into a vector becomes.
fn pick_word(words: vec4<u32>, i: u32) -> u32 {
  let pair = select(words.xy, words.zw, i >= 2u);
  return select(pair.x, pair.y, i % 2u == 1u);
}
