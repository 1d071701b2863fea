// Matrix-matrix product with packed weights, for prefill and perplexity: y[t, r] = sum over c of w[r, c] x[t, c].
//
// Bindings (H = half_blocks, G = 4 H groups in a row):
//   0 base            u32 [rows, G]             2 bits x 16 channels
//   1 refine          u32 [steps, words, 4]     2 bits x 16 channels of each refined group
//   2 meta_words      u32 [steps, H, 4]         |pick 4b|zero 3b, scale 4b| x 4, group 0 lowest
//   3 tile_scale      u32 [tiles, G / 2]        d of two groups, f16 each
//   4 outlier_planes  u32                       row starts [rows + 1], channels u16, residuals f16 at outlier_residuals
//   5 x               f32 [tokens, channels]
//   6 y               f32 [tokens, rows]
//
// Mapping: a workgroup of 16 x 16 threads makes 64 rows x 64 tokens, 4 x 4 a thread. It walks the channels 32 at a
// time: 128 threads decode one group of 16 weights each into workgroup memory, exactly; all threads bring activations;
// then each thread multiplies. Weights are decoded once for 64 tokens.
override rows: u32 = 1;
override channels: u32 = 1;
override half_blocks: u32 = 2;
override tokens: u32 = 1;
override refine_every: u32 = 8; // 0 for none
override outlier_residuals: u32 = 0; // first word of the residuals, 0 where there are no outliers
override without: u32 = 0; // see lib/decode.wgsl

@group(0) @binding(0) var<storage, read> base: array<u32>;
@group(0) @binding(1) var<storage, read> refine: array<u32>;
@group(0) @binding(2) var<storage, read> meta_words: array<u32>;
@group(0) @binding(3) var<storage, read> tile_scale: array<u32>;
@group(0) @binding(4) var<storage, read> outlier_planes: array<u32>;
@group(0) @binding(5) var<storage, read> x: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

const TILE = 64u;
const STEP_CHANNELS = 32u;
const THREADS = 256u;

// [channel of the step][row or token of the tile / 4]
var<workgroup> weight_tile: array<vec4<f32>, STEP_CHANNELS * TILE / 4>;
var<workgroup> token_tile: array<vec4<f32>, STEP_CHANNELS * TILE / 4>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_row = workgroup.x * TILE;
  let first_token = workgroup.y * TILE;
  let masks = code_masks(workgroup.z);
  // Lane i of a sum belongs to the thread's token i; one sum a row.
  var sum0 = vec4(0.0);
  var sum1 = vec4(0.0);
  var sum2 = vec4(0.0);
  var sum3 = vec4(0.0);
  for (var first = 0u; first < channels; first += STEP_CHANNELS) {
    if (thread < 2u * TILE) { decode_group(first_row, first / 16u, thread, masks); }
    load_tokens(first_token, first, thread);
    workgroupBarrier();
    for (var c = 0u; c < STEP_CHANNELS; c++) {
      let w = weight_tile[c * (TILE / 4u) + thread / 16u];
      let t = token_tile[c * (TILE / 4u) + thread % 16u];
      sum0 = fma(vec4(w.x), t, sum0);
      sum1 = fma(vec4(w.y), t, sum1);
      sum2 = fma(vec4(w.z), t, sum2);
      sum3 = fma(vec4(w.w), t, sum3);
    }
    workgroupBarrier();
  }
  let row = first_row + 4u * (thread / 16u);
  let token = first_token + 4u * (thread % 16u);
  write_row(row, token, sum0);
  write_row(row + 1u, token, sum1);
  write_row(row + 2u, token, sum2);
  write_row(row + 3u, token, sum3);
}

// Decodes group `first_group + thread / 64` of row `first_row + thread % 64`; zeros past the end of the matrix.
fn decode_group(first_row: u32, first_group: u32, thread: u32, masks: CodeMasks) {
  let local_row = thread % TILE;
  let row = first_row + local_row;
  let group = first_group + thread / TILE;
  let is_inside = row < rows && group < 4u * half_blocks;
  let weights = decode(select(0u, row, is_inside), select(0u, group, is_inside), masks);
  for (var i = 0u; i < 16u; i++) {
    let at = (thread / TILE * 16u + i) * (TILE / 4u) + local_row / 4u;
    let code = f32((weights.word >> (2u * i)) & 3u) + 0.25 * f32((weights.fine >> (2u * i)) & 3u);
    weight_tile[at][local_row % 4u] = select(0.0, (code - weights.zero) * weights.scale, is_inside);
  }
}

fn load_tokens(first_token: u32, first: u32, thread: u32) {
  for (var i = thread; i < STEP_CHANNELS * TILE; i += THREADS) {
    let c = i % STEP_CHANNELS;
    let local_token = i / STEP_CHANNELS;
    let token = first_token + local_token;
    let is_inside = token < tokens && first + c < channels;
    let value = x[select(0u, token * channels + first + c, is_inside)];
    token_tile[c * (TILE / 4u) + local_token / 4u][local_token % 4u] = select(0.0, value, is_inside);
  }
}

fn write_row(row: u32, token: u32, sums: vec4<f32>) {
  if (row >= rows) { return; }
  for (var i = 0u; i < 4u; i++) {
    if (token + i < tokens) { y[(token + i) * rows + row] = sums[i] + sum_outliers(row, token + i); }
  }
}

fn sum_outliers(row: u32, token: u32) -> f32 {
  if (outlier_residuals == 0u) { return 0.0; }
  var sum = 0.0;
  for (var i = outlier_planes[row]; i < outlier_planes[row + 1u]; i++) {
    let shift = 16u * (i % 2u);
    let channel = (outlier_planes[rows + 1u + i / 2u] >> shift) & 0xffffu;
    sum += unpack2x16float(outlier_planes[outlier_residuals + i / 2u] >> shift).x * x[token * channels + channel];
  }
  return sum;
}
