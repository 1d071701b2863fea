// needs: update_edges
// Sum of outer products, added to a matrix: c[m, n] += factor * sum over k of a[k, m] b[k, n], in f32.
//
// The one product of quantization: Hessians (a = b = inputs by token), the factorization's and the solver's updates,
// error feedback to later channels. Both operands come with the summed index in their rows, so neither is transposed on
// its way.
//
// Bindings beside update_edges.wgsl's:
//   1 a  vec4<f32> rows of a_stride / 4
//   2 b  vec4<f32> rows of b_stride / 4
//
// Mapping: a workgroup of 128 threads makes 64 rows x 128 columns of c, 8 x 8 a thread, in steps of 16 k; as in
// product/parts/tiles/wide_tile.wgsl. Each step passes through workgroup memory while the next is on its way.
override a_stride: u32 = 4;
override b_stride: u32 = 4;

@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;

const TILE_M = 64u;
const TILE_N = 128u;
const STEP = 16u;

// [k of the step][four of m or n]
var<workgroup> a_tile: array<array<vec4<f32>, 16>, 16>;
var<workgroup> b_tile: array<array<vec4<f32>, 32>, 16>;

// [row of the thread][its low four columns, its high four columns]
alias Sums = array<array<vec4<f32>, 2>, 8>;

// Six fours of a step, on their way.
struct Staged {
  a0: vec4<f32>,
  a1: vec4<f32>,
  b0: vec4<f32>,
  b1: vec4<f32>,
  b2: vec4<f32>,
  b3: vec4<f32>,
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let m_first = workgroup.y * TILE_M;
  let n_first = workgroup.x * TILE_N;
  if (is_unwanted(m_first, n_first, TILE_M, TILE_N)) { return; }
  let steps = (update.k + STEP - 1u) / STEP;
  var staged = fetch(m_first, n_first, thread, 0u);
  var sums: Sums;
  for (var step = 0u; step < steps; step++) {
    workgroupBarrier();
    put(staged, thread);
    workgroupBarrier();
    staged = fetch(m_first, n_first, thread, min(step + 1u, steps - 1u) * STEP);
    multiply_step(thread % 8u, thread / 8u, &sums);
  }
  let m = m_first + 4u * (thread % 8u);
  let n = n_first + 4u * (thread / 8u);
  // All that is added to is loaded before any of it is written: otherwise each load would wait for the one before.
  add_rows(m, n, sums, rows_at(m, n));
}

fn fetch(m_first: u32, n_first: u32, thread: u32, k: u32) -> Staged {
  let m = m_first + 4u * (thread % 16u);
  let n = n_first + 4u * (thread % 32u);
  let a_row = k + thread / 16u;
  let b_row = k + thread / 32u;
  return Staged(
    a_at(a_row, m),
    a_at(a_row + 8u, m),
    b_at(b_row, n),
    b_at(b_row + 4u, n),
    b_at(b_row + 8u, n),
    b_at(b_row + 12u, n),
  );
}

// Zeros past the last k, anything past the last m, whose sums are not written.
fn a_at(k: u32, m: u32) -> vec4<f32> {
  let at = (update.a_first + min(k, update.k - 1u) * a_stride + min(m, update.m - 4u)) / 4u;
  return select(vec4(0.0), a[at], k < update.k);
}

fn b_at(k: u32, n: u32) -> vec4<f32> {
  let at = (update.b_first + min(k, update.k - 1u) * b_stride + min(n, update.n - 4u)) / 4u;
  return select(vec4(0.0), b[at], k < update.k);
}

fn put(staged: Staged, thread: u32) {
  a_tile[thread / 16u][thread % 16u] = staged.a0;
  a_tile[thread / 16u + 8u][thread % 16u] = staged.a1;
  b_tile[thread / 32u][thread % 32u] = staged.b0;
  b_tile[thread / 32u + 4u][thread % 32u] = staged.b1;
  b_tile[thread / 32u + 8u][thread % 32u] = staged.b2;
  b_tile[thread / 32u + 12u][thread % 32u] = staged.b3;
}

fn multiply_step(m: u32, n: u32, sums: ptr<function, Sums>) {
  multiply(0u, m, n, sums);
  multiply(1u, m, n, sums);
  multiply(2u, m, n, sums);
  multiply(3u, m, n, sums);
  multiply(4u, m, n, sums);
  multiply(5u, m, n, sums);
  multiply(6u, m, n, sums);
  multiply(7u, m, n, sums);
  multiply(8u, m, n, sums);
  multiply(9u, m, n, sums);
  multiply(10u, m, n, sums);
  multiply(11u, m, n, sums);
  multiply(12u, m, n, sums);
  multiply(13u, m, n, sums);
  multiply(14u, m, n, sums);
  multiply(15u, m, n, sums);
}

fn multiply(k: u32, m: u32, n: u32, sums: ptr<function, Sums>) {
  let a0 = a_tile[k][m];
  let a1 = a_tile[k][m + 8u];
  let b0 = b_tile[k][n];
  let b1 = b_tile[k][n + 16u];
  multiply_row(0u, a0.x, b0, b1, sums);
  multiply_row(1u, a0.y, b0, b1, sums);
  multiply_row(2u, a0.z, b0, b1, sums);
  multiply_row(3u, a0.w, b0, b1, sums);
  multiply_row(4u, a1.x, b0, b1, sums);
  multiply_row(5u, a1.y, b0, b1, sums);
  multiply_row(6u, a1.z, b0, b1, sums);
  multiply_row(7u, a1.w, b0, b1, sums);
}

fn multiply_row(i: u32, value: f32, b0: vec4<f32>, b1: vec4<f32>, sums: ptr<function, Sums>) {
  (*sums)[i][0] = fma(vec4(value), b0, (*sums)[i][0]);
  (*sums)[i][1] = fma(vec4(value), b1, (*sums)[i][1]);
}

fn rows_at(m: u32, n: u32) -> Sums {
  return Sums(
    row_at(m, n),
    row_at(m + 1u, n),
    row_at(m + 2u, n),
    row_at(m + 3u, n),
    row_at(m + 32u, n),
    row_at(m + 33u, n),
    row_at(m + 34u, n),
    row_at(m + 35u, n),
  );
}

fn row_at(m: u32, n: u32) -> array<vec4<f32>, 2> {
  return array(four_at(m, n), four_at(m, n + 64u));
}

fn add_rows(m: u32, n: u32, sums: Sums, before: Sums) {
  add_to_row(m, n, sums[0], before[0]);
  add_to_row(m + 1u, n, sums[1], before[1]);
  add_to_row(m + 2u, n, sums[2], before[2]);
  add_to_row(m + 3u, n, sums[3], before[3]);
  add_to_row(m + 32u, n, sums[4], before[4]);
  add_to_row(m + 33u, n, sums[5], before[5]);
  add_to_row(m + 34u, n, sums[6], before[6]);
  add_to_row(m + 35u, n, sums[7], before[7]);
}

fn add_to_row(m: u32, n: u32, sums: array<vec4<f32>, 2>, before: array<vec4<f32>, 2>) {
  add_to_four(m, n, before[0], sums[0]);
  add_to_four(m, n + 64u, before[1], sums[1]);
}
