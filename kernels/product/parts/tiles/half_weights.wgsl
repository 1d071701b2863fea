// is: packed_weights
// Packed weights of fused_gemm.wgsl in f16, two at a time, for tiles that multiply matrices: w = (code / 4 - zero) *
// scale, of which the difference is exact and the scale is rounded before the product is.
alias Halves = vec2<f16>;

// The four bits of a code in the mantissas of two halves.
const CODE_MASK = 0x00f000f0u;

fn halves_in(bits: u32) -> Halves { return bitcast<Halves>(bits); }

fn bits_of(halves: Halves) -> u32 { return bitcast<u32>(halves); }

// What two neighbouring groups have of their own: codes of scale and zero at the same bits of each half.
struct GroupPair {
  // Halves with 16 above each zero: what a code is subtracted from has it too.
  zeros: Halves,
  scales: Halves,
}

fn group_pair(meta_word: u32, scales: u32) -> GroupPair {
  let codes = (meta_word & 0xffffu) | ((meta_word << 9u) & 0xffff0000u);
  return GroupPair(
    halves_in((codes & 0x00700070u) + 0x4c284c28u),
    (halves_in((codes & 0x000f000fu) | 0x64006400u) - Halves(1024.0)) * halves_in(scales),
  );
}

// A turn is half a group; steps of the tile begin with whole groups. What turns of a step have in common compilers take
// out of them; which group one is they see where a step takes whole half blocks.
fn put_weights(staged: ptr<function, Weights>, tile_row: u32, turn: u32, tile_channel: u32, slot: u32) {
  let group = (turn - tile_channel / 8u) / 2u % 4u + tile_channel / 16u;
  let is_late = group >= 2u;
  let pair = group_pair(
    (*staged).meta_word >> select(0u, 14u, is_late),
    select((*staged).scales.x, (*staged).scales.y, is_late),
  );
  let is_odd = group % 2u == 1u;
  let scale = Halves(select(pair.scales.x, pair.scales.y, is_odd));
  var zero = Halves(select(pair.zeros.x, pair.zeros.y, is_odd));
  var fine = 0u;
  if (is_refined((*staged).meta_word, turn / 2u)) {
    // 16 + zero becomes 16 + (0.75 zero + 0.75).
    zero = fma(Halves(0.75), zero, Halves(4.75));
    fine = pick_word((*staged).refine, group);
  }
  let word = pick_word((*staged).base, group);
  // Codes of even and of odd channels, four bits each, base bits above refine bits.
  let even = ((word << 2u) & 0xccccccccu) | (fine & 0x33333333u);
  let odd = (word & 0xccccccccu) | ((fine >> 2u) & 0x33333333u);
  // Of the turn's eight channels even ones in the low half, odd ones in the high half.
  let is_second = tile_channel / 8u % 2u == 1u;
  let codes = select((even & 0xffffu) | (odd << 16u), (even >> 16u) | (odd & 0xffff0000u), is_second);
  let mask = (*staged).code_mask;
  put_halves(
    tile_channel,
    tile_row,
    vec4(
      two_weights(codes << 4u, mask, zero, scale),
      two_weights(codes, mask, zero, scale),
      two_weights(codes >> 4u, mask, zero, scale),
      two_weights(codes >> 8u, mask, zero, scale),
    ),
  );
  if (outlier_residuals != 0u) { put_outliers(staged, tile_row, 8u * turn, tile_channel); }
}

// The codes under the mask, four bits each, become 16 + code / 4.
fn two_weights(codes: u32, mask: u32, zero: Halves, scale: Halves) -> u32 {
  return bits_of((halves_in((codes & mask) | 0x4c004c00u) - zero) * scale);
}
