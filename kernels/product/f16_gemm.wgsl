// needs: tile
// Matrix-matrix product with f16 weights, for prefill and perplexity: y[t, r] = sum over c of w[r, c] x[t, c], in f32.
//
// Bindings (C = chunks of 8 channels in a row, T = range.tokens):
//   0 range    uniform, see tokens/parts/token_range.wgsl
//   1 weights  vec4<u32> [rows, C]           8 f16, channel 0 in the low half of the first word
//   2 x        vec4<f32> [T, channels / 4], as bits; in half_turns.wgsl eight f16 each
//   3 y        f32 [T, token_rows], of which `rows` from `first_row` on are written; or sums of parts of the channels,
//              see few_sums.wgsl
//
// The product itself is in the tile: wide, narrow for few tokens, or one of those that multiply matrices, for many or
// few; this file brings the weights.
override chunks: u32 = 1;

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Neighbouring threads bring neighbouring turns of a row.
const TURNS_TOGETHER = 1u;

// Turns of a row on their way into workgroup memory.
struct Weights {
  words: array<vec4<u32>, TURN_SLOTS>,
}

fn start_weights(row: u32, always_zero: u32) -> Weights {
  var weights: Weights;
  weights.words[0].x = always_zero;
  return weights;
}

fn fetch_weights(staged: ptr<function, Weights>, row: u32, turn: u32, slot: u32) {
  (*staged).words[slot] = weights[row * chunks + min(turn, chunks - 1u)];
}

fn put_weights(staged: ptr<function, Weights>, tile_row: u32, turn: u32, tile_channel: u32, slot: u32) {
  put_halves(tile_channel, tile_row, (*staged).words[slot]);
}
