// needs: update_edges matrix_product
// The sum of outer products of outer_update.wgsl by subgroups that multiply matrices (tensor cores): factors are f16 in
// units, turned by turn_halves.wgsl, sums f32. Rows of the product are columns of c, tokens its rows, and channels the
// outer products.
//
// Bindings beside update_edges.wgsl's (update.k is a multiple of 32):
//   1 a  vec4<u32> [m, k / 8]
//   2 b  vec4<u32> [n, k / 8]
@group(0) @binding(1) var<storage, read> a: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<u32>>;

// Eight k of the columns n, n + 32, n + 64 and n + 96 of the tile, and of such rows.
alias Weights = array<vec4<u32>, 4>;
alias Activations = array<vec4<u32>, 4>;

fn is_idle(first_row: u32, first_token: u32) -> bool {
  return is_unwanted(first_token, first_row, TILE_TOKENS, TILE_ROWS);
}

fn step_count() -> u32 {
  return update.k / STRIDE_CHANNELS;
}

fn start(first_row: u32, thread: u32, part: u32, always_zero: u32) -> Weights {
  return Weights();
}

fn fetch_turns(weights: ptr<function, Weights>, first_row: u32, thread: u32, step: u32) {
  let n = first_row + thread / STEP_TURNS;
  let turn = step * STEP_TURNS + thread % STEP_TURNS;
  *weights = Weights(b_at(n, turn), b_at(n + 32u, turn), b_at(n + 64u, turn), b_at(n + 96u, turn));
}

fn fetch_activations(first_token: u32, thread: u32, step: u32) -> Activations {
  let m = first_token + thread / STEP_TURNS;
  let turn = step * STEP_TURNS + thread % STEP_TURNS;
  return Activations(a_at(m, turn), a_at(m + 32u, turn), a_at(m + 64u, turn), a_at(m + 96u, turn));
}

// Anything past the last m or n, whose sums are not written.
fn a_at(m: u32, turn: u32) -> vec4<u32> {
  return a[(update.a_first + min(m, update.m - 1u) * update.k) / 8u + turn];
}

fn b_at(n: u32, turn: u32) -> vec4<u32> {
  return b[(update.b_first + min(n, update.n - 1u) * update.k) / 8u + turn];
}

fn put_turns(weights: ptr<function, Weights>, thread: u32, step: u32) {
  let n = thread / STEP_TURNS;
  let turn = thread % STEP_TURNS;
  put_row(n, turn, (*weights)[0]);
  put_row(n + 32u, turn, (*weights)[1]);
  put_row(n + 64u, turn, (*weights)[2]);
  put_row(n + 96u, turn, (*weights)[3]);
}

fn put_activations(activations: ptr<function, Activations>, thread: u32) {
  let m = thread / STEP_TURNS;
  let turn = thread % STEP_TURNS;
  put_token(m, turn, (*activations)[0]);
  put_token(m + 32u, turn, (*activations)[1]);
  put_token(m + 64u, turn, (*activations)[2]);
  put_token(m + 96u, turn, (*activations)[3]);
}

// Sums of four columns of a row of c.
fn write_rows(n: u32, m: u32, sums: vec4<f32>) {
  add_four(m, n, activation_unit * sums);
}
