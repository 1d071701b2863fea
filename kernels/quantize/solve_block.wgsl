// Solves V z = b (backwards) or V^T z = b (forwards) for a diagonal block of a factor and many right-hand sides.
//
// Bindings (n = range.size <= 64, f = range.first):
//   0 range   uniform: f, n, right-hand sides, r
//   1 blocks  f32 [blocks, 64, 64]: V^T of each diagonal block
//   2 x       f32 rows of `stride`: rows r .. r + n - 1 hold b, replaced by z
//   3 panel   f32 [64, stride]: receives z too, for a product that writes to x
//
// Mapping: a thread a right-hand side; the block lies in workgroup memory, padded to keep lanes on different banks.
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

var<workgroup> block: array<array<f32, 65>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  for (var row = 0u; row < 64u; row++) { block[row][thread] = blocks[range.first * 64u + row * 64u + thread]; }
  workgroupBarrier();
  if (id.x >= range.columns) { return; }
  for (var step = 0u; step < range.size; step++) {
    let k = select(step, range.size - 1u - step, backwards == 1u);
    var value = x[(range.row + k) * stride + id.x];
    for (var i = 0u; i < step; i++) {
      let other = select(i, range.size - 1u - i, backwards == 1u);
      let coefficient = block[max(k, other)][min(k, other)];
      value -= coefficient * panel[other * stride + id.x];
    }
    value /= block[k][k];
    panel[k * stride + id.x] = value;
    x[(range.row + k) * stride + id.x] = value;
  }
}
