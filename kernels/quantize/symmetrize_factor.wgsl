// Copies rows of the lower triangle of a square matrix to columns of the upper one, so that a factor can be read by
// rows and by columns.
//
//   slab[i, j] = panel[j, i] for the rows j of the panel and the rows i < j of the slab
//
// Bindings (R = rows of the slab):
//   0 range  uniform: first row of the panel, its rows, first row of the slab, its rows
//   1 panel  f32 [256, size]
//   2 slab   f32 [R, size]
//
// Mapping: a thread an element, 64 rows of the panel a workgroup; workgroup.y is the row of the slab.
override size: u32 = 1;

struct Range {
  first: u32,
  rows: u32,
  slab_first: u32,
  slab_rows: u32,
}

@group(0) @binding(0) var<uniform> range: Range;
@group(0) @binding(1) var<storage, read> panel: array<f32>;
@group(0) @binding(2) var<storage, read_write> slab: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= range.rows || id.y >= range.slab_rows) { return; }
  let i = range.slab_first + id.y;
  let j = range.first + id.x;
  if (i < j) { slab[id.y * size + j] = panel[id.x * size + i]; }
}
