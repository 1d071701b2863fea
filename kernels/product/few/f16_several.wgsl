// needs: outputs reduce halves
// Matrix-vector products of some tokens with the same f16 weights: y[t, r] = sum over c of w[r, c] x[t, c], in f32.
//
// Bindings (C = chunks of 8 channels in a row):
//   0 weights  vec4<u32> [rows, C]  8 f16, channel 0 in the low half of the first word
//   1 x        vec4<f32> [tokens, 2 C]
//   2 y        f32 [all_tokens, token_rows], of which `rows` are written
//
// Mapping: a workgroup is one team (a subgroup) with four rows, of which a lane takes a chunk for four or eight tokens,
// so that each load of weights serves all of them and each of x four rows. Its lanes read neighbouring chunks, and two
// chunks of each row are in flight at once. workgroup.z counts the workgroup's tokens.
override rows: u32 = 1;
override token_rows: u32 = 1; // rows of y from one token to the next
override y_row: u32 = 0; // of row 0, where a matrix is one of several that make y
override all_tokens: u32 = 4;
override fours: u32 = 1; // of tokens in a workgroup: 1 or 2
override chunks: u32 = 1;
override team: u32 = 32;
override workgroup_size: u32 = 32; // = team
override output_kind: u32 = 0; // see product/parts/outputs.wgsl

@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// A chunk of four rows.
struct Rows {
  row0: vec4<u32>,
  row1: vec4<u32>,
  row2: vec4<u32>,
  row3: vec4<u32>,
}

// Sums of four rows, for each of four tokens.
struct Sums {
  token0: vec4<f32>,
  token1: vec4<f32>,
  token2: vec4<f32>,
  token3: vec4<f32>,
}

@compute @workgroup_size(workgroup_size)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let first_row = 4u * (workgroup.y * count.x + workgroup.x);
  let first_token = 4u * fours * workgroup.z;
  let starts = min(vec4(first_row) + vec4(0u, 1u, 2u, 3u), vec4(rows - 1u)) * chunks;
  var low: Sums;
  var high: Sums;
  for (var chunk = lane; chunk < chunks; chunk += 2u * team) {
    let next = min(chunk + team, chunks - 1u);
    let a = load_rows(starts, chunk);
    let b = load_rows(starts, next);
    low = add_rows(add_rows(low, a, first_token, chunk, true), b, first_token, next, chunk + team < chunks);
    if (fours == 1u) { continue; }
    high = add_rows(high, a, first_token + 4u, chunk, true);
    high = add_rows(high, b, first_token + 4u, next, chunk + team < chunks);
  }
  write_tokens(first_token, first_row, low, lane);
  if (fours == 2u) { write_tokens(first_token + 4u, first_row, high, lane); }
}

fn load_rows(starts: vec4<u32>, chunk: u32) -> Rows {
  return Rows(weights[starts.x + chunk], weights[starts.y + chunk], weights[starts.z + chunk], weights[starts.w + chunk]);
}

fn add_rows(sums: Sums, w: Rows, first_token: u32, chunk: u32, is_own: bool) -> Sums {
  let tokens = min(vec4(first_token) + vec4(0u, 1u, 2u, 3u), vec4(all_tokens - 1u)) * 2u * chunks;
  return Sums(
    sums.token0 + select(vec4(0.0), dot_rows(w, tokens.x + 2u * chunk), is_own),
    sums.token1 + select(vec4(0.0), dot_rows(w, tokens.y + 2u * chunk), is_own),
    sums.token2 + select(vec4(0.0), dot_rows(w, tokens.z + 2u * chunk), is_own),
    sums.token3 + select(vec4(0.0), dot_rows(w, tokens.w + 2u * chunk), is_own),
  );
}

fn dot_rows(w: Rows, at: u32) -> vec4<f32> {
  let low = x[at];
  let high = x[at + 1u];
  return vec4(
    dot_halves(w.row0, low, high),
    dot_halves(w.row1, low, high),
    dot_halves(w.row2, low, high),
    dot_halves(w.row3, low, high),
  );
}

fn write_tokens(first_token: u32, first_row: u32, sums: Sums, lane: u32) {
  write_token(first_token, first_row, sums.token0, lane);
  write_token(first_token + 1u, first_row, sums.token1, lane);
  write_token(first_token + 2u, first_row, sums.token2, lane);
  write_token(first_token + 3u, first_row, sums.token3, lane);
}

fn write_token(token: u32, first_row: u32, sums: vec4<f32>, lane: u32) {
  let whole = vec4(
    sum_strided(sums.x, lane, 1u, team),
    sum_strided(sums.y, lane, 1u, team),
    sum_strided(sums.z, lane, 1u, team),
    sum_strided(sums.w, lane, 1u, team),
  );
  let row = first_row + lane;
  if (lane >= 4u || row >= rows || token >= all_tokens) { return; }
  let at = token * token_rows + y_row + row;
  if (output_kind == ADD) { y[at] += whole[lane]; } else { y[at] = whole[lane]; }
}
