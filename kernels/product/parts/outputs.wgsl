// What becomes of the sum of a row. From the kernel: `output_kind`.
const ADD = 1u; // y += W x
const SILU_PRODUCT = 2u; // y = silu(G x) (U x); the upper half of the matrix is G, the lower half U

// Rows that are multiplied for one element of y.
fn rows_per_output() -> u32 {
  return select(1u, 2u, output_kind == SILU_PRODUCT);
}

// gate / (1 + exp(-gate)); the limit keeps exp finite where the quotient is 0 in f32 anyway.
fn silu_product(gate: f32, up: f32) -> f32 {
  return gate / (1.0 + exp(-max(gate, -88.0))) * up;
}
