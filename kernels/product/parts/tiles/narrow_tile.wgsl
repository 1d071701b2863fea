// needs: gemm_edges float_tile
// is: tile
// Matrix-matrix product for few tokens: y[t, r] = sum over c of w[r, c] x[t, c], for any kind of weights.
//
// Mapping: a workgroup of 4 teams of 32 threads makes 32 rows x 16 tokens. Each team takes every fourth run of 64
// channels, 8 channels a turn, and makes all 32 x 16 sums, 4 x 4 a thread; at the end the teams' sums are added up.
// With few tokens it is the weights' way from memory that counts: small tiles and short walks keep more loads in
// flight.
//
// From the kernel: the same as for wide_tile.wgsl.

const TILE_ROWS = 32u;
const TILE_TOKENS = 16u;
const TEAMS = 4u;
const RUN_TURNS = 8u;
// Of a run of every team.
const STRIDE_CHANNELS = 64u * TEAMS;
// Turns from one of a thread's own to the next.
const TURN_STRIDE = 1u;
const TURN_SLOTS = 1u;

// [channel of the turn][team, row or token of the tile / 4]
var<workgroup> weight_tile: array<array<vec4<f32>, 32>, 8>;
var<workgroup> token_tile: array<array<vec4<f32>, 16>, 8>;

// One entry a token: four rows.
alias Sums = array<vec4<f32>, 4>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_token = workgroup.x * TILE_TOKENS;
  let tile_first_row = workgroup.y * TILE_ROWS;
  if (first_token >= range.tokens) { return; }
  let row = min(tile_first_row + thread % TILE_ROWS, rows - 1u);
  let team = thread / TILE_ROWS;
  let team_turns = (channels + STRIDE_CHANNELS - 1u) / STRIDE_CHANNELS * RUN_TURNS;
  var weights = start_weights(row, workgroup.z);
  fetch_weights(&weights, row, turn_of(team, 0u), 0u);
  var activations = fetch_activations(first_token, thread, turn_of(team, 0u));
  var sums: Sums;
  for (var i = 0u; i < team_turns; i++) {
    workgroupBarrier();
    put_weights(&weights, thread, turn_of(team, i), 0u, 0u);
    put_activations(thread, activations);
    workgroupBarrier();
    let next = turn_of(team, min(i + 1u, team_turns - 1u));
    fetch_weights(&weights, row, next, 0u);
    activations = fetch_activations(first_token, thread, next);
    multiply_turn(8u * team + thread % 8u, 4u * team + thread % 32u / 8u, &sums);
  }
  let sum_of_teams = add_teams(thread, &sums);
  write_rows(tile_first_row + 4u * (thread % 8u), first_token + thread / 8u, sum_of_teams);
}

// The i-th turn of a team. Past the last channel a kernel brings any weights and activations are zero.
fn turn_of(team: u32, i: u32) -> u32 {
  return (i / RUN_TURNS * TEAMS + team) * RUN_TURNS + i % RUN_TURNS;
}

fn fetch_activations(first_token: u32, thread: u32, turn: u32) -> vec4<f32> {
  return activations_at(first_token + thread % 32u / 2u, turn * 2u + thread % 2u);
}

fn put_activations(thread: u32, values: vec4<f32>) {
  let channel = 4u * (thread % 2u);
  let quad = 4u * (thread / 32u) + thread % 32u / 8u;
  let i = thread / 2u % 4u;
  token_tile[channel][quad][i] = values.x;
  token_tile[channel + 1u][quad][i] = values.y;
  token_tile[channel + 2u][quad][i] = values.z;
  token_tile[channel + 3u][quad][i] = values.w;
}

fn multiply_turn(row_quad: u32, token_quad: u32, sums: ptr<function, Sums>) {
  multiply_channel(0u, row_quad, token_quad, sums);
  multiply_channel(1u, row_quad, token_quad, sums);
  multiply_channel(2u, row_quad, token_quad, sums);
  multiply_channel(3u, row_quad, token_quad, sums);
  multiply_channel(4u, row_quad, token_quad, sums);
  multiply_channel(5u, row_quad, token_quad, sums);
  multiply_channel(6u, row_quad, token_quad, sums);
  multiply_channel(7u, row_quad, token_quad, sums);
}

fn multiply_channel(channel: u32, row_quad: u32, token_quad: u32, sums: ptr<function, Sums>) {
  let weights = weight_tile[channel][row_quad];
  let activations = token_tile[channel][token_quad];
  (*sums)[0] = fma(weights, vec4(activations.x), (*sums)[0]);
  (*sums)[1] = fma(weights, vec4(activations.y), (*sums)[1]);
  (*sums)[2] = fma(weights, vec4(activations.z), (*sums)[2]);
  (*sums)[3] = fma(weights, vec4(activations.w), (*sums)[3]);
}

// Sums over the teams, of token thread / 8 and row quad thread % 8: tokens 0 to 7 first, then 8 to 15, since the
// weights' memory, [token][team, row of the tile / 4] by now, holds no more.
fn add_teams(thread: u32, sums: ptr<function, Sums>) -> vec4<f32> {
  let first = add_half(thread, 0u, sums);
  let second = add_half(thread, 1u, sums);
  return select(first, second, thread >= 64u);
}

fn add_half(thread: u32, half: u32, sums: ptr<function, Sums>) -> vec4<f32> {
  workgroupBarrier();
  if (thread % 32u / 16u == half) {
    let token = thread % 16u / 8u * 4u;
    let quad = 8u * (thread / 32u) + thread % 8u;
    weight_tile[token][quad] = (*sums)[0];
    weight_tile[token + 1u][quad] = (*sums)[1];
    weight_tile[token + 2u][quad] = (*sums)[2];
    weight_tile[token + 3u][quad] = (*sums)[3];
  }
  workgroupBarrier();
  let token = thread / 8u % 8u;
  let quad = thread % 8u;
  let low = weight_tile[token][quad] + weight_tile[token][quad + 8u];
  return low + (weight_tile[token][quad + 16u] + weight_tile[token][quad + 24u]);
}
