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

struct Group {
  word: u32,
  // Refine word, were it refined.
  fine: u32,
  // 16 + zero, were it not.
  zero: Halves,
  scale: Halves,
}

// Two neighbouring groups are four turns of a thread, which brings a multiple of that at a time: the first turn's call
// puts all four.
fn put_weights(staged: ptr<function, Weights>, tile_row: u32, turn: u32, tile_channel: u32, slot: u32) {
  if (slot % 4u != 0u) { return; }
  let is_late = turn / 4u % 2u == 1u;
  let pair = group_pair(
    (*staged).meta_word >> select(0u, 14u, is_late),
    select((*staged).scales.x, (*staged).scales.y, is_late),
  );
  let words = select((*staged).base.xy, (*staged).base.zw, is_late);
  let fine = select((*staged).refine.xy, (*staged).refine.zw, is_late);
  let first = Group(words.x, fine.x, Halves(pair.zeros.x), Halves(pair.scales.x));
  let second = Group(words.y, fine.y, Halves(pair.zeros.y), Halves(pair.scales.y));
  put_group(staged, tile_row, turn, tile_channel, first);
  put_group(staged, tile_row, turn + 2u, tile_channel + 16u, second);
}

fn put_group(staged: ptr<function, Weights>, tile_row: u32, turn: u32, tile_channel: u32, group: Group) {
  // No branch: of the rows of a subgroup one nearly always is refined. 16 + zero becomes 16 + (0.75 zero + 0.75).
  let refined = is_refined((*staged).meta_word, turn / 2u);
  let zero = select(group.zero, fma(Halves(0.75), group.zero, Halves(4.75)), refined);
  let fine = select(0u, group.fine, refined);
  // Codes of even and of odd channels, four bits each, base bits above refine bits.
  let even = ((group.word << 2u) & 0xccccccccu) | (fine & 0x33333333u);
  let odd = (group.word & 0xccccccccu) | ((fine >> 2u) & 0x33333333u);
  // Of a turn's eight channels even ones in the low half, odd ones in the high half.
  put_turn(staged, tile_row, turn, tile_channel, (even & 0xffffu) | (odd << 16u), zero, group.scale);
  put_turn(staged, tile_row, turn + 1u, tile_channel + 8u, (even >> 16u) | (odd & 0xffff0000u), zero, group.scale);
}

fn put_turn(
  staged: ptr<function, Weights>,
  tile_row: u32,
  turn: u32,
  tile_channel: u32,
  codes: u32,
  zero: Halves,
  scale: Halves,
) {
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
