// Solves V z = b (backwards) or V^T z = b (forwards) for a diagonal block of a factor and many right-hand sides.
//
// Bindings (n = range.size <= 64, f = range.first):
//   0 range   uniform: f, n, right-hand sides, r
//   1 blocks  f32 [blocks, 64, 64]: V^T of each diagonal block
//   2 x       f32 rows of `stride`: rows r .. r + n - 1 hold b, replaced by z
//   3 panel   f32 [64, stride]: receives z too, for a product that writes to x
//
// Mapping: 32 right-hand sides a workgroup, eight threads each to load and store them. One of these solves it in workgroup
// memory, where its elements lie in the order in which they are solved, four side by side, as do those of the block.
override stride: u32 = 1;
override backwards: u32 = 1;

struct Range {
  first: u32,
  size: u32,
  columns: u32,
  row: u32,
}

@group(0) @binding(0) var<uniform> range: Range;
@group(0) @binding(1) var<storage, read> blocks: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> panel: array<f32>;

const COLUMNS = 32u;
const THREADS = 256u;

// [element][those solved before it / 4], zeros from itself on.
var<workgroup> coefficients: array<array<vec4<f32>, 16>, 64>;
var<workgroup> pivots: array<f32, 64>;
// [element / 4][right-hand side].
var<workgroup> values: array<array<vec4<f32>, COLUMNS>, 16>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let lane = thread % COLUMNS;
  let column = workgroup.x * COLUMNS + lane;
  for (var at = thread; at < 1024u; at += THREADS) {
    let step = at / 16u;
    let i = 4u * (at % 16u);
    coefficients[step][at % 16u] =
      vec4(coefficient(step, i), coefficient(step, i + 1u), coefficient(step, i + 2u), coefficient(step, i + 3u));
  }
  if (thread < range.size) { pivots[thread] = block_element(row_of(thread), row_of(thread)); }
  for (var four = thread / COLUMNS; four < 16u; four += THREADS / COLUMNS) {
    let i = 4u * four;
    values[four][lane] = vec4(x_at(i, column), x_at(i + 1u, column), x_at(i + 2u, column), x_at(i + 3u, column));
  }
  workgroupBarrier();
  if (thread < COLUMNS) {
    for (var step = 0u; step < range.size; step++) { values[step / 4u][lane][step % 4u] = solve(step, lane); }
  }
  workgroupBarrier();
  for (var step = thread / COLUMNS; step < range.size; step += THREADS / COLUMNS) {
    if (column >= range.columns) { continue; }
    let value = values[step / 4u][lane][step % 4u];
    panel[row_of(step) * stride + column] = value;
    x[(range.row + row_of(step)) * stride + column] = value;
  }
}

fn x_at(step: u32, column: u32) -> f32 {
  if (step >= range.size || column >= range.columns) { return 0.0; }
  return x[(range.row + row_of(step)) * stride + column];
}

// Eight at a time: what is not yet solved among them counts by zeros.
fn solve(step: u32, lane: u32) -> f32 {
  var value = values[step / 4u][lane][step % 4u];
  for (var four = 0u; 4u * four < step; four += 2u) {
    value = less(value, coefficients[step][four], values[four][lane]);
    value = less(value, coefficients[step][four + 1u], values[four + 1u][lane]);
  }
  return value / pivots[step];
}

fn less(from_value: f32, factors: vec4<f32>, before: vec4<f32>) -> f32 {
  var value = from_value;
  value -= factors.x * before.x;
  value -= factors.y * before.y;
  value -= factors.z * before.z;
  value -= factors.w * before.w;
  return value;
}

// The row of the block that is solved in a step.
fn row_of(step: u32) -> u32 {
  return select(step, range.size - 1u - step, backwards == 1u);
}

fn coefficient(step: u32, before: u32) -> f32 {
  if (before >= step || step >= range.size) { return 0.0; }
  return block_element(max(row_of(step), row_of(before)), min(row_of(step), row_of(before)));
}

fn block_element(row: u32, column: u32) -> f32 {
  return blocks[(range.first + row) * 64u + column];
}
