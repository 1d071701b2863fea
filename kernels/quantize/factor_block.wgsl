// Factors a diagonal block, D = V V^T with V upper triangular, from its last row upwards (quant/cholesky.ts).
//
// Bindings (n = range.size <= 64, f = range.first):
//   0 range     uniform: f, n, columns (not used here), row f's place in the slab
//   1 slab      f32 rows of `size`: D in the lower triangle of rows and columns f .. f + n - 1, replaced by V^T
//   2 diagonal  f32 [size]: the matrix's diagonal before the factorization
//   3 blocks    f32 [blocks, 64, 64]: receives V^T of block f / 64
//   4 failed    u32 [1]: counts pivots that are no larger than rounding leaves of the diagonal
//
// Mapping: one workgroup; four threads have a row of the block, in workgroup memory.
override size: u32 = 1;
// Sums of products lose some units of 2^-24 each; a positive definite matrix that is damped stays far above.
override least_pivot: f32 = 3.814697265625e-6;

struct Range {
  first: u32,
  size: u32,
  columns: u32,
  row: u32,
}

@group(0) @binding(0) var<uniform> range: Range;
@group(0) @binding(1) var<storage, read_write> slab: array<f32>;
@group(0) @binding(2) var<storage, read> diagonal: array<f32>;
@group(0) @binding(3) var<storage, read_write> blocks: array<f32>;
@group(0) @binding(4) var<storage, read_write> failed: array<u32>;

var<workgroup> block: array<array<f32, 65>, 64>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32) {
  let i = thread % 64u;
  let part = thread / 64u;
  let row = (range.row + i) * size + range.first;
  if (i < range.size) {
    for (var j = part; j <= i; j += 4u) { block[i][j] = slab[row + j]; }
  }
  for (var step = 0u; step < range.size; step++) {
    let k = range.size - 1u - step;
    workgroupBarrier();
    let least = diagonal[range.first + k] * least_pivot;
    let square = block[k][k];
    let is_positive = square > least;
    let pivot = sqrt(select(1.0, square, is_positive));
    // Row k of V^T: column k of V. Each thread keeps its own element until all have read the pivot.
    let value = select(block[k][min(i, k)] / pivot, pivot, i == k);
    workgroupBarrier();
    if (part == 0u && i <= k) { block[k][i] = value; }
    if (thread == 0u && !is_positive) { failed[0]++; }
    workgroupBarrier();
    if (i < k) {
      for (var j = part; j <= i; j += 4u) { block[i][j] -= value * block[k][j]; }
    }
  }
  workgroupBarrier();
  if (i < range.size) {
    for (var j = part; j <= i; j += 4u) {
      slab[row + j] = block[i][j];
      blocks[range.first * 64u + i * 64u + j] = block[i][j];
    }
  }
}
