// needs: update_edges matrix_product
// The sum of outer products of outer_update.wgsl by subgroups that multiply matrices (tensor cores): factors are f16,
// sums f32. Rows of the product are columns of c, tokens its rows, and channels the outer products.
//
// A thread brings eight k of four columns of a and of b, which it turns on their way into workgroup memory: neighbouring
// threads load neighbouring columns.

// Four columns each of k, k + 1, ... k + 7.
alias Weights = array<vec4<f32>, 8>;
alias Activations = array<vec4<f32>, 8>;

fn is_idle(first_row: u32, first_token: u32) -> bool {
  return is_unwanted(first_token, first_row, TILE_TOKENS, TILE_ROWS);
}

fn step_count() -> u32 {
  return (update.k + STRIDE_CHANNELS - 1u) / STRIDE_CHANNELS;
}

fn start(first_row: u32, thread: u32, part: u32, always_zero: u32) -> Weights {
  return Weights();
}

fn first_k(thread: u32, step: u32) -> u32 {
  return step * STRIDE_CHANNELS + 8u * (thread % STEP_TURNS);
}

fn own_column(thread: u32) -> u32 {
  return 4u * (thread / STEP_TURNS);
}

fn fetch_turns(weights: ptr<function, Weights>, first_row: u32, thread: u32, step: u32) {
  let k = first_k(thread, step);
  let n = first_row + own_column(thread);
  *weights = Weights(
    b_at(k, n),
    b_at(k + 1u, n),
    b_at(k + 2u, n),
    b_at(k + 3u, n),
    b_at(k + 4u, n),
    b_at(k + 5u, n),
    b_at(k + 6u, n),
    b_at(k + 7u, n),
  );
}

fn fetch_activations(first_token: u32, thread: u32, step: u32) -> Activations {
  let k = first_k(thread, step);
  let m = first_token + own_column(thread);
  return Activations(
    a_at(k, m),
    a_at(k + 1u, m),
    a_at(k + 2u, m),
    a_at(k + 3u, m),
    a_at(k + 4u, m),
    a_at(k + 5u, m),
    a_at(k + 6u, m),
    a_at(k + 7u, m),
  );
}

fn put_turns(weights: ptr<function, Weights>, thread: u32, step: u32) {
  let low = turned((*weights)[0], (*weights)[1], (*weights)[2], (*weights)[3]);
  let high = turned((*weights)[4], (*weights)[5], (*weights)[6], (*weights)[7]);
  put_column(thread, 0u, low[0], high[0]);
  put_column(thread, 1u, low[1], high[1]);
  put_column(thread, 2u, low[2], high[2]);
  put_column(thread, 3u, low[3], high[3]);
}

fn put_column(thread: u32, i: u32, low: vec4<f32>, high: vec4<f32>) {
  put_row(own_column(thread) + i, thread % STEP_TURNS, in_units(low, high));
}

fn put_activations(activations: ptr<function, Activations>, thread: u32) {
  let low = turned((*activations)[0], (*activations)[1], (*activations)[2], (*activations)[3]);
  let high = turned((*activations)[4], (*activations)[5], (*activations)[6], (*activations)[7]);
  let m = own_column(thread);
  put_token(m, thread % STEP_TURNS, in_units(low[0], high[0]));
  put_token(m + 1u, thread % STEP_TURNS, in_units(low[1], high[1]));
  put_token(m + 2u, thread % STEP_TURNS, in_units(low[2], high[2]));
  put_token(m + 3u, thread % STEP_TURNS, in_units(low[3], high[3]));
}

fn turned(k0: vec4<f32>, k1: vec4<f32>, k2: vec4<f32>, k3: vec4<f32>) -> mat4x4<f32> {
  return transpose(mat4x4(k0, k1, k2, k3));
}

// Sums of four columns of a row of c.
fn write_rows(n: u32, m: u32, sums: vec4<f32>) {
  add_four(m, n, activation_unit * sums);
}
