// Turns rows of a matrix so that channels lie in rows, in the order of quantization: what the quantizing kernels read.
// They are added to what is there, the shift of a corrected target.
//
//   transposed[p, r] += weights[r - first, channel_order[p]]
//
// Bindings (C = channels):
//   0 part           uniform: first row of the part, its rows
//   1 weights        f32 [part's rows, C]
//   2 channel_order  u32 [C]: the channel at each position
//   3 transposed     f32 [C, rows]
//
// Mapping: a thread 16 positions of a row, 64 rows a workgroup; workgroup.y says which. Where groups of 16 channels stay
// together a thread reads 64 bytes in a row; neighbours write neighbouring words.
override rows: u32 = 1;
override channels: u32 = 16;

struct Part {
  first: u32,
  rows: u32,
}

@group(0) @binding(0) var<uniform> part: Part;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read> channel_order: array<u32>;
@group(0) @binding(3) var<storage, read_write> transposed: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= part.rows) { return; }
  for (var k = 0u; k < 16u; k += 4u) { add_four(16u * id.y + k, id.x); }
}

fn add_four(position: u32, row: u32) {
  let source = row * channels;
  let target_at = position * rows + part.first + row;
  transposed[target_at] += weights[source + channel_order[position]];
  transposed[target_at + rows] += weights[source + channel_order[position + 1u]];
  transposed[target_at + 2u * rows] += weights[source + channel_order[position + 2u]];
  transposed[target_at + 3u * rows] += weights[source + channel_order[position + 3u]];
}
