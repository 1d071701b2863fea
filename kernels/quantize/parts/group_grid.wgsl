// The grid of a group while it is being quantized: w = (code - zero) * step, in units of the finest code (format.ts).

override has_outliers: u32 = 0;

const SCALE_CODES = 16u;
const ZERO_CODES = 8u;

// 16 weights.
alias Values = array<vec4<f32>, 4>;

struct Grid {
  step: f32,
  per_step: f32,
  zero: f32,
  last_code: f32,
}

// A grid by its scale (0 rounds everything to 0) and zero code.
fn make_grid(scale: f32, zero_code: u32, is_refined: bool) -> Grid {
  let step = select(scale, 0.25 * scale, is_refined);
  let zero = select(0.625 + 0.25 * f32(zero_code), 4.875 + 0.75 * f32(zero_code), is_refined);
  return Grid(step, select(0.0, 1.0 / step, step > 0.0), zero, select(3.0, 15.0, is_refined));
}

fn nearest_codes(weights: vec4<f32>, grid: Grid) -> vec4<f32> {
  return clamp(floor(weights * grid.per_step + (grid.zero + 0.5)), vec4(0.0), vec4(grid.last_code));
}

fn nearest_values(weights: vec4<f32>, grid: Grid) -> vec4<f32> {
  return (nearest_codes(weights, grid) - grid.zero) * grid.step;
}

// Bit k is set where weight k of the group is stored exactly; it then leaves no error.
var<private> outlier_mask: u32;

fn are_outliers(four: u32) -> vec4<bool> {
  if (has_outliers == 0u) { return vec4(false); }
  return (vec4(outlier_mask >> (4u * four)) & vec4(1u, 2u, 4u, 8u)) != vec4(0u);
}

// What weights 4 four .. 4 four + 3 of the group are rounded to; outliers stay as they are.
fn rounded_values(four: u32, weights: vec4<f32>, grid: Grid) -> vec4<f32> {
  return select(nearest_values(weights, grid), weights, are_outliers(four));
}

// Scale and zero code that suit a group best, and the error that they leave.
struct Choice {
  error: f32,
  scale_code: u32,
  zero_code: u32,
}

// Two bits of each of four codes, the first lowest.
fn join_bits(codes: vec4<u32>) -> u32 {
  return codes.x | (codes.y << 2u) | (codes.z << 4u) | (codes.w << 6u);
}
