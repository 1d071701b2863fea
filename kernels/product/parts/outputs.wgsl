// needs: silu
// What becomes of the sum of a row. From the kernel: `output_kind`.
const ADD = 1u; // y += W x
const SILU_PRODUCT = 2u; // y = silu(G x) (U x); the upper half of the matrix is G, the lower half U

// Rows that are multiplied for one element of y.
fn rows_per_output() -> u32 {
  return select(1u, 2u, output_kind == SILU_PRODUCT);
}
