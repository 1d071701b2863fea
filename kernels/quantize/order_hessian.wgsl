// Rows of a Hessian in the order of quantization (quant/error_feedback.ts): what is factored. The Hessian lies in the
// upper triangle of the matrix whose lower one becomes its factor, so rows are put together in a panel beside it.
//
//   panel[i, j] = hessian[c(i), c(j)] for j < i, diagonal[i] for j = i;  c = channel_order
//
// Bindings (R = rows of the slab; one dispatch takes what lies in one slab):
//   0 range        uniform: first row of the panel, its rows, first row of the slab, its rows
//   1 slab         f32 [R, size]: the Hessian in its upper triangle
//   2 channel_order  u32 [size]
//   3 diagonal     f32 [size]: the damped diagonal, in that order
//   4 panel        f32 [256, size]; elements beyond the diagonal stay as they are
//
// Mapping: a thread an element, 64 columns a workgroup; workgroup.y is the row of the panel.
override size: u32 = 16;

struct Range {
  first: u32,
  rows: u32,
  slab_first: u32,
  slab_rows: u32,
}

@group(0) @binding(0) var<uniform> range: Range;
@group(0) @binding(1) var<storage, read> slab: array<f32>;
@group(0) @binding(2) var<storage, read> channel_order: array<u32>;
@group(0) @binding(3) var<storage, read> diagonal: array<f32>;
@group(0) @binding(4) var<storage, read_write> panel: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = range.first + id.y;
  let j = id.x;
  if (j > i) { return; }
  let at = id.y * size + j;
  if (j == i) {
    panel[at] = diagonal[i];
    return;
  }
  let a = channel_order[i];
  let b = channel_order[j];
  let row = min(a, b) - range.slab_first;
  if (min(a, b) >= range.slab_first && row < range.slab_rows) { panel[at] = slab[row * size + max(a, b)]; }
}
