// needs: gemm_edges float_tile
// is: tile
// Matrix-matrix product for many tokens: y[t, r] = sum over c of w[r, c] x[t, c], for any kind of weights.
//
// Mapping: a workgroup of 128 threads makes 64 rows x 128 tokens, 8 x 8 a thread. It walks the channels in steps of 16.
// In a step every thread puts 8 weights and 16 activations into workgroup memory, as f32 and by channel; then it asks
// for what the next step needs and meanwhile multiplies: 64 multiply-adds for 16 values read. By the times two such
// workgroups share a multiprocessor of an H200: while one waits at a barrier the other multiplies. A thread's rows are
// four in a row and the four 32 further on, its tokens likewise 64 further on: so neighbouring lanes read neighbouring
// words.
//
// From the kernel, where a turn is 8 consecutive channels:
//   Weights, start_weights(row, 0), fetch_weights(weights, row, turn, slot), put_weights(weights, tile_row, turn,
//   tile_channel, slot), where slot is one of TURN_SLOTS turns that are under way at once.

const TILE_ROWS = 64u;
const TILE_TOKENS = 128u;
const STEP_CHANNELS = 16u;
const STRIDE_CHANNELS = STEP_CHANNELS;
// Turns from one of a thread's own to the next.
const TURN_STRIDE = 2u;
const TURN_SLOTS = 1u;

// [channel of the step][row of the tile / 4]
var<workgroup> weight_tile: array<array<vec4<f32>, 16>, 16>;
// [channel of the step][token of the tile / 4, see token_quad]
var<workgroup> token_tile: array<array<vec4<f32>, 32>, 16>;

// Four channels of the tokens t, t + 32, t + 64 and t + 96 of the tile.
alias Activations = array<vec4<f32>, 4>;

// [token of the thread][its low four rows, its high four rows]
alias Sums = array<array<vec4<f32>, 2>, 8>;

// Where a thread's rows and tokens begin, in fours. Lanes of a warp lie 8 along the rows and 4 along the tokens, so
// that a read of workgroup memory touches few different words.
struct Place {
  row: u32,
  token: u32,
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_token = workgroup.x * TILE_TOKENS;
  let tile_first_row = workgroup.y * TILE_ROWS;
  if (first_token >= range.tokens) { return; }
  let tile_row = thread % TILE_ROWS;
  let half = thread / TILE_ROWS;
  let row = min(tile_first_row + tile_row, rows - 1u);
  let place = Place(thread % 8u, thread / 8u);
  let steps = (channels + STEP_CHANNELS - 1u) / STEP_CHANNELS;
  var weights = start_weights(row, workgroup.z);
  fetch_weights(&weights, row, half, 0u);
  var activations = fetch_activations(first_token, thread, 0u);
  var sums: Sums;
  for (var step = 0u; step < steps; step++) {
    workgroupBarrier();
    put_weights(&weights, tile_row, 2u * step + half, 8u * half, 0u);
    put_activations(&activations, thread);
    workgroupBarrier();
    let next = min(step + 1u, steps - 1u);
    fetch_weights(&weights, row, 2u * next + half, 0u);
    activations = fetch_activations(first_token, thread, next);
    multiply_step(place, &sums);
  }
  write_sums(tile_first_row + 4u * place.row, first_token + 4u * place.token, &sums);
}

fn fetch_activations(first_token: u32, thread: u32, step: u32) -> Activations {
  let token = first_token + thread / 4u;
  let chunk = step * 4u + thread % 4u;
  return Activations(
    activations_at(token, chunk),
    activations_at(token + 32u, chunk),
    activations_at(token + 64u, chunk),
    activations_at(token + 96u, chunk),
  );
}

fn put_activations(activations: ptr<function, Activations>, thread: u32) {
  put_quad(thread, 0u, (*activations)[0]);
  put_quad(thread, 8u, (*activations)[1]);
  put_quad(thread, 16u, (*activations)[2]);
  put_quad(thread, 24u, (*activations)[3]);
}

fn put_quad(thread: u32, first_quad: u32, values: vec4<f32>) {
  let channel = 4u * (thread % 4u);
  let quad = token_quad(channel, first_quad + thread / 16u);
  let i = thread / 4u % 4u;
  token_tile[channel][quad][i] = values.x;
  token_tile[channel + 1u][quad][i] = values.y;
  token_tile[channel + 2u][quad][i] = values.z;
  token_tile[channel + 3u][quad][i] = values.w;
}

// Tokens are shuffled by channel: lanes that store different channels at once then meet different memory banks.
fn token_quad(channel: u32, quad: u32) -> u32 {
  return quad ^ (2u * (channel / 4u));
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
  let w1 = weight_tile[channel][place.row + 8u];
  let t0 = token_tile[channel][token_quad(channel, place.token)];
  let t1 = token_tile[channel][token_quad(channel, place.token) + 16u];
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
  write_token(row, token + 0u, (*sums)[0]);
  write_token(row, token + 1u, (*sums)[1]);
  write_token(row, token + 2u, (*sums)[2]);
  write_token(row, token + 3u, (*sums)[3]);
  write_token(row, token + 64u, (*sums)[4]);
  write_token(row, token + 65u, (*sums)[5]);
  write_token(row, token + 66u, (*sums)[6]);
  write_token(row, token + 67u, (*sums)[7]);
}

fn write_token(row: u32, token: u32, sums: array<vec4<f32>, 2>) {
  write_rows(row, token, sums[0]);
  write_rows(row + 32u, token, sums[1]);
}
