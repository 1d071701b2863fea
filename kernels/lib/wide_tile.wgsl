// Matrix-matrix product for many tokens: y[t, r] = sum over c of w[r, c] x[t, c], for any kind of weights.
//
// Mapping: a workgroup of 256 threads makes 128 rows x 128 tokens, 8 x 8 a thread. It walks the channels in steps of
// 16. In a step every thread puts 8 weights and 8 activations into workgroup memory, as f32 and by channel; then it
// starts to load what the next step needs and meanwhile multiplies: 64 multiply-adds for 16 values read.
//
// Needs from the kernel: `channels`, `rows`, `token_rows`, `first_row`, `add_to_y`; `range`, `x`, `y`;
//   Weights, start_weights(row), fetch_weights(weights, row, half, step), put_weights(weights, tile_row, half, step).
// A half is 8 of the 16 channels of a step.

const TILE = 128u;
const STEP_CHANNELS = 16u;

// [channel of the step][row or token of the tile / 4]
var<workgroup> weight_tile: array<array<vec4<f32>, 32>, 16>;
var<workgroup> token_tile: array<array<vec4<f32>, 32>, 16>;

// Four channels each of a token of the tile and of the token 64 further on.
struct Activations {
  low: vec4<f32>,
  high: vec4<f32>,
}

// [token of the thread][its low four rows, its high four rows]
alias Sums = array<array<vec4<f32>, 2>, 8>;

// Where a thread's rows and tokens begin, in fours. Lanes of a warp lie 8 along the rows and 4 along the tokens, so that
// a read of workgroup memory touches few different values.
struct Place {
  row: u32,
  token: u32,
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_token = workgroup.x * TILE;
  let tile_first_row = workgroup.y * TILE;
  if (first_token >= range.tokens) { return; }
  let tile_row = thread % TILE;
  let half = thread / TILE;
  let row = min(tile_first_row + tile_row, rows - 1u);
  let place = Place(thread % 8u + 8u * (thread / 32u % 2u), thread % 32u / 8u + 4u * (thread / 64u));
  let steps = (channels + STEP_CHANNELS - 1u) / STEP_CHANNELS;
  var weights = start_weights(row, workgroup.z);
  fetch_weights(&weights, row, half, 0u);
  var activations = fetch_activations(first_token, thread, 0u);
  var sums: Sums;
  for (var step = 0u; step < steps; step++) {
    workgroupBarrier();
    put_weights(&weights, tile_row, half, step);
    put_activations(activations, thread);
    workgroupBarrier();
    let next = min(step + 1u, steps - 1u);
    fetch_weights(&weights, row, half, next);
    activations = fetch_activations(first_token, thread, next);
    multiply_step(place, &sums);
  }
  write_sums(tile_first_row + 4u * place.row, first_token + 4u * place.token, &sums);
}

fn put_weight(channel: u32, tile_row: u32, value: f32) {
  weight_tile[channel][tile_row / 4u][tile_row % 4u] = value;
}

fn add_to_weight(channel: u32, tile_row: u32, value: f32) {
  weight_tile[channel][tile_row / 4u][tile_row % 4u] += value;
}

fn fetch_activations(first_token: u32, thread: u32, step: u32) -> Activations {
  let token = first_token + thread / 4u;
  let chunk = step * 4u + thread % 4u;
  return Activations(activations_at(token, chunk), activations_at(token + TILE / 2u, chunk));
}

// Four channels of a token; the last token in place of those past the end, zeros for channels past the end.
fn activations_at(token: u32, chunk: u32) -> vec4<f32> {
  let chunks = channels / 4u;
  let value = x[min(token, range.tokens - 1u) * chunks + min(chunk, chunks - 1u)];
  return select(vec4(0.0), value, channels % STEP_CHANNELS == 0u || chunk < chunks);
}

fn put_activations(activations: Activations, thread: u32) {
  let channel = 4u * (thread % 4u);
  let token = thread / 4u;
  let low = token / 4u;
  let high = low + TILE / 8u;
  for (var i = 0u; i < 4u; i++) {
    token_tile[channel + i][low][token % 4u] = activations.low[i];
    token_tile[channel + i][high][token % 4u] = activations.high[i];
  }
}

fn multiply_step(place: Place, sums: ptr<function, Sums>) {
  multiply_channel(0u, place, sums);
  multiply_channel(1u, place, sums);
  multiply_channel(2u, place, sums);
  multiply_channel(3u, place, sums);
  multiply_channel(4u, place, sums);
  multiply_channel(5u, place, sums);
  multiply_channel(6u, place, sums);
  multiply_channel(7u, place, sums);
  multiply_channel(8u, place, sums);
  multiply_channel(9u, place, sums);
  multiply_channel(10u, place, sums);
  multiply_channel(11u, place, sums);
  multiply_channel(12u, place, sums);
  multiply_channel(13u, place, sums);
  multiply_channel(14u, place, sums);
  multiply_channel(15u, place, sums);
}

fn multiply_channel(channel: u32, place: Place, sums: ptr<function, Sums>) {
  let w0 = weight_tile[channel][place.row];
  let w1 = weight_tile[channel][place.row + TILE / 8u];
  let t0 = token_tile[channel][place.token];
  let t1 = token_tile[channel][place.token + TILE / 8u];
  multiply_token(0u, w0, w1, t0.x, sums);
  multiply_token(1u, w0, w1, t0.y, sums);
  multiply_token(2u, w0, w1, t0.z, sums);
  multiply_token(3u, w0, w1, t0.w, sums);
  multiply_token(4u, w0, w1, t1.x, sums);
  multiply_token(5u, w0, w1, t1.y, sums);
  multiply_token(6u, w0, w1, t1.z, sums);
  multiply_token(7u, w0, w1, t1.w, sums);
}

fn multiply_token(i: u32, w0: vec4<f32>, w1: vec4<f32>, activation: f32, sums: ptr<function, Sums>) {
  (*sums)[i][0] = fma(w0, vec4(activation), (*sums)[i][0]);
  (*sums)[i][1] = fma(w1, vec4(activation), (*sums)[i][1]);
}

fn write_sums(row: u32, token: u32, sums: ptr<function, Sums>) {
  write_token(row, token, (*sums)[0]);
  write_token(row, token + 1u, (*sums)[1]);
  write_token(row, token + 2u, (*sums)[2]);
  write_token(row, token + 3u, (*sums)[3]);
  write_token(row, token + TILE / 2u, (*sums)[4]);
  write_token(row, token + TILE / 2u + 1u, (*sums)[5]);
  write_token(row, token + TILE / 2u + 2u, (*sums)[6]);
  write_token(row, token + TILE / 2u + 3u, (*sums)[7]);
}

fn write_token(row: u32, token: u32, sums: array<vec4<f32>, 2>) {
  write_rows(row, token, sums[0]);
  write_rows(row + TILE / 2u, token, sums[1]);
}
