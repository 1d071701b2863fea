// needs: input_values quarters
// The inputs of fused_several.wgsl, token by token in the cells: those of a token follow those of the one before.
override tokens: u32 = 4; // of a workgroup: 2 or 4

@group(0) @binding(6) var<storage, read> values: array<f32>;
@group(0) @binding(7) var<storage, read> norm_weight: array<f32>;

// A norm's sums of squares by team, and its factors; a component a token.
var<workgroup> token_squares: array<vec4<f32>, workgroup_size / team>;
var<workgroup> token_factors: vec4<f32>;

// Input of two quarters, workgroup_size apart.
struct Fill {
  a: Input,
  b: Input,
}

// The first token and the first half block of a workgroup. `always_zero` is that, which a compiler doesn't know: loops
// with it in their bound stay loops. Kernels take turns, so their code comes cold, and 50 KB of it cost 8 us.
struct Corner {
  token: u32,
  half_block: u32,
  always_zero: u32,
}

fn token_quarters() -> u32 {
  return 4u * columns * team * LANE_GROUPS;
}

fn load_quarters(corner: Corner, thread: u32) -> Fill {
  return Fill(load_quarter(corner, thread), load_quarter(corner, thread + workgroup_size));
}

fn load_quarter(corner: Corner, index: u32) -> Input {
  // Behind a branch, as compilers would sink loads to their first use.
  var input: Input;
  if (index < tokens * token_quarters()) {
    input = load_input(corner.token + index / token_quarters(), first_channel(corner, index), 4u);
  }
  return input;
}

fn first_channel(corner: Corner, index: u32) -> u32 {
  let quarter = index % token_quarters();
  return corner.half_block * 64u + quarter / 4u * 16u + quarter % 4u;
}

// Given the first two quarters of each thread; two more are on their way at a time.
fn fill_cells(first_two: Fill, corner: Corner, thread: u32) {
  var fill = first_two;
  var squares = vec4(0.0);
  for (var first = 0u; first < tokens * token_quarters() + corner.always_zero; first += workgroup_size) {
    let next = load_quarter(corner, first + 2u * workgroup_size + thread);
    squares += fill_token_quarter(fill.a, corner, first + thread, thread);
    fill = Fill(fill.b, next);
  }
  if (input_kind == RMS_NORM) { put_token_squares(squares, thread); }
}

// Returns the sum of the squares, for a norm, in the token's component.
fn fill_token_quarter(input: Input, corner: Corner, index: u32, thread: u32) -> vec4<f32> {
  let start = first_channel(corner, index);
  let is_used = index < tokens * token_quarters();
  put_quarter(input_values(input, start, 4u), index, is_used, thread);
  let is_own = vec4(index / token_quarters()) == vec4(0u, 1u, 2u, 3u);
  return select(vec4(0.0), vec4(input_squares(input, start, 4u)), is_own);
}

fn put_token_squares(squares: vec4<f32>, thread: u32) {
  let sum = sum_of_lanes(squares, thread);
  if (thread % team == 0u) { token_squares[thread / team] = sum; }
}

fn sum_of_lanes(v: vec4<f32>, thread: u32) -> vec4<f32> {
  return vec4(
    sum_strided(v.x, thread, 1u, team),
    sum_strided(v.y, thread, 1u, team),
    sum_strided(v.z, thread, 1u, team),
    sum_strided(v.w, thread, 1u, team),
  );
}

// Once all cells are filled: the factors of a norm, which the tokens' rows are multiplied by at the end.
fn finish_tokens(thread: u32) {
  if (input_kind != RMS_NORM) { return; }
  var squares = vec4(0.0);
  for (var i = thread % team; i < workgroup_size / team; i += team) { squares += token_squares[i]; }
  squares = sum_of_lanes(squares, thread);
  if (thread == 0u) { token_factors = inverseSqrt(squares / f32(channels) + vec4(epsilon)); }
}

fn token_factor(token: u32) -> f32 {
  if (input_kind != RMS_NORM) { return 1.0; }
  return token_factors[token];
}

// Of the sums of rows.wgsl, which are of one token.
fn input_factor() -> f32 {
  return 1.0;
}
