// Channels in the order of quantization: y[16 p + k, r] = x[16 group_order[p] + k, r].
//
// Bindings:
//   0 x            f32 [channels, rows]
//   1 group_order  u32 [channels / 16]
//   2 y            f32 [channels, rows]
//
// Mapping: a thread an element, 64 rows a workgroup; workgroup.y is the channel.
override rows: u32 = 1;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> group_order: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= rows) { return; }
  y[id.y * rows + id.x] = x[(16u * group_order[id.y / 16u] + id.y % 16u) * rows + id.x];
}
