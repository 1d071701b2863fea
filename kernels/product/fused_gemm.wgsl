// needs: tile packed_weights decode
// Matrix-matrix product with packed weights, for prefill and perplexity: y[t, r] = sum over c of w[r, c] x[t, c], in
// f32.
//
// Bindings (H = half_blocks, half blocks of 64 channels in a row; T = range.tokens):
//   0 range           uniform, see tokens/parts/token_range.wgsl
//   1 base            vec4<u32> [rows, H]       2 bits x 64 channels: |group 0: c15..c0|group 1|group 2|group 3|
//   2 refine          u32 [steps, words, 4]     2 bits x 16 channels of each refined group
//   3 meta_words      u32 [steps, H, 4]         |pick 4b|zero 3b, scale 4b| x 4, group 0 lowest
//   4 tile_scale      vec2<u32> [tiles, H]      d of four groups, f16 each; H rounded up to even
//   5 outlier_planes  u32                       row starts [rows + 1], channels u16, residuals f16 at outlier_residuals
//   6 x               vec4<f32> [T, channels / 4], as bits; in half_turns.wgsl eight f16 each
//   7 y               f32 [T, token_rows], of which `rows` from `first_row` on are written; or sums of parts of the
//                     channels, without outliers, see few_sums.wgsl
//
// The product itself is in the tile: wide, narrow for few tokens, or one of those that multiply matrices, for many or
// few; this file brings the weights. A thread follows one row. It asks for all planes of a half block at once, while the
// channels before are multiplied; each turn it decodes 8 weights, exactly, into workgroup memory, once for all tokens of
// the tile. Outliers are added to the decoded weights there: they come sorted by channel, and the next two wait in
// registers.
override half_blocks: u32 = 2;
override refine_every: u32 = 8; // 0 for none
override outlier_residuals: u32 = 0; // first word of the residuals, 0 where there are no outliers

@group(0) @binding(1) var<storage, read> base: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> refine: array<u32>;
@group(0) @binding(3) var<storage, read> meta_words: array<u32>;
@group(0) @binding(4) var<storage, read> tile_scale: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read> outlier_planes: array<u32>;
@group(0) @binding(6) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;

// All that a thread brings is of its row.
const TURNS_TOGETHER = TURN_SLOTS;

// A half block of a row on its way into workgroup memory.
struct Weights {
  base: vec4<u32>,
  // Refine word of each group, were it refined.
  refine: vec4<u32>,
  meta_word: u32,
  scales: vec2<u32>,
  masks: CodeMasks,
  // CODE_MASK, made from an always-zero index as those in CodeMasks are.
  code_mask: u32,
  // The row's next two outliers: the second one is on its way while the first is waiting for its step.
  outlier: Outlier,
  following: Outlier,
  // Index of the outlier after these, and of the row's end.
  next_outlier: u32,
  end_outlier: u32,
}

struct Outlier {
  channel: u32,
  residual: f32,
}

fn start_weights(row: u32, always_zero: u32) -> Weights {
  var staged: Weights;
  staged.masks = code_masks(always_zero);
  staged.code_mask = CODE_MASK + always_zero;
  if (outlier_residuals != 0u) {
    let first = outlier_planes[row];
    staged.end_outlier = outlier_planes[row + 1u];
    staged.outlier = load_outlier(first, staged.end_outlier);
    staged.following = load_outlier(first + 1u, staged.end_outlier);
    staged.next_outlier = first + 2u;
  }
  return staged;
}

// Asks for a half block when its first turn of the thread comes; so there is one under way for all slots.
fn fetch_weights(staged: ptr<function, Weights>, row: u32, turn: u32, slot: u32) {
  if (turn % 8u >= TURN_STRIDE || slot > 0u) { return; }
  let half_block = min(turn / 8u, half_blocks - 1u);
  (*staged).base = base[row * half_blocks + half_block];
  (*staged).meta_word = meta_words[(row / 4u * half_blocks + half_block) * 4u + row % 4u];
  (*staged).scales = tile_scale[row / 16u * ((half_blocks + 1u) / 2u * 2u) + half_block];
  if (refine_every != 0u) { (*staged).refine = refine_words(row, half_block); }
}

// The refine words that the four groups of a half block would have: runs of 4 groups and more share one.
fn refine_words(row: u32, half_block: u32) -> vec4<u32> {
  let every = max(refine_every, 1u);
  let run = row / 4u * ((4u * half_blocks + every - 1u) / every) + 4u * half_block / every;
  let first = run * 4u + row % 4u;
  if (every == 1u) { return vec4(refine[first], refine[first + 4u], refine[first + 8u], refine[first + 12u]); }
  if (every == 2u) { return vec4(vec2(refine[first]), vec2(refine[first + 4u])); }
  return vec4(refine[first]);
}

fn is_refined(meta_word: u32, group: u32) -> bool {
  if (refine_every == 0u) { return false; }
  let pick = meta_word >> 28u;
  if (refine_every == 1u) { return true; }
  if (refine_every == 2u) { return ((pick >> (group / 2u % 2u)) & 1u) == group % 2u; }
  return pick == group % max(refine_every, 1u);
}

// Adds the row's outliers in the 8 channels from `first` on, whose weights are at `tile_channel`.
fn put_outliers(staged: ptr<function, Weights>, tile_row: u32, first: u32, tile_channel: u32) {
  while ((*staged).outlier.channel < first + 8u) {
    let outlier = (*staged).outlier;
    if (outlier.channel >= first) {
      add_to_weight(tile_channel + outlier.channel - first, tile_row, outlier.residual);
    }
    (*staged).outlier = (*staged).following;
    (*staged).following = load_outlier((*staged).next_outlier, (*staged).end_outlier);
    (*staged).next_outlier++;
  }
}

fn load_outlier(index: u32, end: u32) -> Outlier {
  if (index >= end) { return Outlier(0xffffffffu, 0.0); }
  let shift = 16u * (index % 2u);
  let channel = (outlier_planes[rows + 1u + index / 2u] >> shift) & 0xffffu;
  return Outlier(channel, unpack2x16float(outlier_planes[outlier_residuals + index / 2u] >> shift).x);
}
