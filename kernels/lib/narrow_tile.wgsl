// Matrix-matrix product for few tokens: y[t, r] = sum over c of w[r, c] x[t, c], for any kind of weights.
//
// Mapping: a workgroup of 4 teams of 32 threads makes 32 rows x 16 tokens. Each team takes every fourth run of 64
// channels, in steps of 16, and makes all 32 x 16 sums, 4 x 4 a thread; at the end the teams' sums are added up. With
// few tokens it is the weights' way from memory that counts: more workgroups and shorter walks keep more loads in flight.
//
// Needs the same from the kernel as lib/wide_tile.wgsl.

const TILE_ROWS = 32u;
const TILE_TOKENS = 16u;
const TEAMS = 4u;
const STEP_CHANNELS = 16u;
const RUN_STEPS = 4u;

// [channel of the step][team, row or token of the tile / 4]
var<workgroup> weight_tile: array<array<vec4<f32>, 32>, 16>;
var<workgroup> token_tile: array<array<vec4<f32>, 16>, 16>;

// Four channels each of a token of the tile and of the token 8 further on.
struct Activations {
  low: vec4<f32>,
  high: vec4<f32>,
}

// One entry a token: four rows.
alias Sums = array<vec4<f32>, 4>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_token = workgroup.x * TILE_TOKENS;
  let tile_first_row = workgroup.y * TILE_ROWS;
  if (first_token >= range.tokens) { return; }
  let row = min(tile_first_row + thread % TILE_ROWS, rows - 1u);
  let team = thread / TILE_ROWS;
  let team_runs = (channels + 64u * TEAMS - 1u) / (64u * TEAMS);
  var weights = start_weights(row, workgroup.z);
  var sums: Sums;
  for (var i = 0u; i < team_runs * RUN_STEPS; i++) {
    // Past the last channel weights are those of the last step and activations are zero.
    let step = (i / RUN_STEPS * TEAMS + team) * RUN_STEPS + i % RUN_STEPS;
    fetch_step(&weights, row, step, thread, first_token);
    workgroupBarrier();
    multiply_step(8u * team + thread % 8u, 4u * team + thread % 32u / 8u, &sums);
    workgroupBarrier();
  }
  let sum_of_teams = add_teams(thread, &sums);
  write_rows(tile_first_row + 4u * (thread % 8u), first_token + thread / 8u, sum_of_teams);
}

fn fetch_step(weights: ptr<function, Weights>, row: u32, step: u32, thread: u32, first_token: u32) {
  let last_step = (channels - 1u) / STEP_CHANNELS;
  let low = activations_at(first_token + thread % 32u / 4u, step * 4u + thread % 4u);
  let high = activations_at(first_token + thread % 32u / 4u + 8u, step * 4u + thread % 4u);
  fetch_weights(weights, row, 0u, min(step, last_step));
  put_weights(weights, thread, 0u, min(step, last_step));
  fetch_weights(weights, row, 1u, min(step, last_step));
  put_weights(weights, thread, 1u, min(step, last_step));
  put_activations(thread, low, high);
}

fn put_weight(channel: u32, tile_row: u32, value: f32) {
  weight_tile[channel][tile_row / 4u][tile_row % 4u] = value;
}

fn add_to_weight(channel: u32, tile_row: u32, value: f32) {
  weight_tile[channel][tile_row / 4u][tile_row % 4u] += value;
}

// Four channels of a token; the last token in place of those past the end, zeros for channels past the end.
fn activations_at(token: u32, chunk: u32) -> vec4<f32> {
  let chunks = channels / 4u;
  let value = x[min(token, range.tokens - 1u) * chunks + min(chunk, chunks - 1u)];
  return select(vec4(0.0), value, chunk < chunks);
}

fn put_activations(thread: u32, low: vec4<f32>, high: vec4<f32>) {
  let channel = 4u * (thread % 4u);
  let token = thread % 32u / 4u;
  let quad = 4u * (thread / 32u) + token / 4u;
  for (var i = 0u; i < 4u; i++) {
    token_tile[channel + i][quad][token % 4u] = low[i];
    token_tile[channel + i][quad + 2u][token % 4u] = high[i];
  }
}

fn multiply_step(row_quad: u32, token_quad: u32, sums: ptr<function, Sums>) {
  for (var channel = 0u; channel < STEP_CHANNELS; channel += 4u) {
    multiply_channel(channel, row_quad, token_quad, sums);
    multiply_channel(channel + 1u, row_quad, token_quad, sums);
    multiply_channel(channel + 2u, row_quad, token_quad, sums);
    multiply_channel(channel + 3u, row_quad, token_quad, sums);
  }
}

fn multiply_channel(channel: u32, row_quad: u32, token_quad: u32, sums: ptr<function, Sums>) {
  let weights = weight_tile[channel][row_quad];
  let activations = token_tile[channel][token_quad];
  (*sums)[0] = fma(weights, vec4(activations.x), (*sums)[0]);
  (*sums)[1] = fma(weights, vec4(activations.y), (*sums)[1]);
  (*sums)[2] = fma(weights, vec4(activations.z), (*sums)[2]);
  (*sums)[3] = fma(weights, vec4(activations.w), (*sums)[3]);
}

// Sums over the teams, of token thread / 8 and row quad thread % 8; the weights' memory is free by now.
fn add_teams(thread: u32, sums: ptr<function, Sums>) -> vec4<f32> {
  let token = thread % 32u / 8u * 4u;
  let quad = 8u * (thread / 32u) + thread % 8u;
  weight_tile[token][quad] = (*sums)[0];
  weight_tile[token + 1u][quad] = (*sums)[1];
  weight_tile[token + 2u][quad] = (*sums)[2];
  weight_tile[token + 3u][quad] = (*sums)[3];
  workgroupBarrier();
  let own = thread / 8u;
  var sum = weight_tile[own][thread % 8u];
  for (var team = 1u; team < TEAMS; team++) { sum += weight_tile[own][8u * team + thread % 8u]; }
  return sum;
}
