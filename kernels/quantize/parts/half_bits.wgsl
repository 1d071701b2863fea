// Bits of the nearest f16 to a number that isn't negative, ties to even: the rounding of built-in conversions is free.
fn half_bits(value: f32) -> u32 {
  if (value >= 65520.0) { return 0x7c00u; }
  if (value < 0.00006103515625) { return bitcast<u32>(value + 0.5) - 0x3f000000u; }
  let bits = bitcast<u32>(value);
  return ((bits + 0xfffu + ((bits >> 13u) & 1u)) >> 13u) - 0x1c000u;
}
