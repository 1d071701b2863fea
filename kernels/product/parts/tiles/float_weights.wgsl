// is: packed_weights
// Packed weights of fused_gemm.wgsl in f32, exactly, for tiles that multiply them so.

// The four bits of a code in a float's mantissa.
const CODE_MASK = 0x00780000u;

// w = (code / 4 - zero) * scale as one multiply-add, f * 4 scale - (4 + zero) * scale: the four bits of a code, base
// bits above refine bits, go to the top of the mantissa of f = 1 + code / 16. Exact, as every term has at most 23 bits.
fn put_weights(staged: ptr<function, Weights>, tile_row: u32, turn: u32, tile_channel: u32, slot: u32) {
  let group = turn / 2u % 4u;
  let half_shift = 16u * (turn % 2u);
  let meta_codes = align_codes((*staged).meta_word, group);
  let d = unpack2x16float(select((*staged).scales.x, (*staged).scales.y, group >= 2u) >> (16u * (group % 2u))).x;
  let scale = scale_of(meta_codes, (*staged).masks, 512.0 * d);
  var zero = zero_plus(meta_codes, (*staged).masks) - ZERO_PLUS;
  var fine = 0u;
  if (is_refined((*staged).meta_word, turn / 2u)) {
    zero = fma(0.75, zero, 0.75);
    fine = pick_word((*staged).refine, group) >> half_shift;
  }
  let word = pick_word((*staged).base, group) >> half_shift;
  // Codes of even and of odd channels, four bits each.
  let even = ((word & 0x3333u) << 2u) | (fine & 0x3333u);
  let odd = (word & 0xccccu) | ((fine >> 2u) & 0x3333u);
  let decoder = Decoder((*staged).code_mask, 4.0 * scale, -(4.0 + zero) * scale);
  put_eight(
    tile_channel,
    tile_row,
    decode_pairs(even << 19u, odd << 19u, even << 15u, odd << 15u, decoder),
    decode_pairs(even << 11u, odd << 11u, even << 7u, odd << 7u, decoder),
  );
  if (outlier_residuals != 0u) { put_outliers(staged, tile_row, 8u * turn, tile_channel); }
}

struct Decoder {
  mask: u32,
  factor: f32,
  offset: f32,
}

fn decode_pairs(a: u32, b: u32, c: u32, d: u32, decoder: Decoder) -> vec4<f32> {
  return vec4(decode(a, decoder), decode(b, decoder), decode(c, decoder), decode(d, decoder));
}

fn decode(codes: u32, decoder: Decoder) -> f32 {
  return fma(bitcast<f32>((codes & decoder.mask) | 0x3f800000u), decoder.factor, decoder.offset);
}
