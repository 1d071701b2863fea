// Turns an f16 matrix: columns of a target become its rows.
//
//   target[channel, first_row + row] = source[row, channel]
//
// Bindings (two f16 a word):
//   0 source      u32 [rows, source_words]
//   1 transposed  u32 [channels, target_words]
//
// Mapping: a workgroup of 256 threads turns 32 rows x 32 channels by way of its memory. Rows are even in number but for
// the last matrix of a target, whose last word then ends with a zero.
override rows: u32 = 1;
override channels: u32 = 2;
override first_row: u32 = 0; // even
override source_words: u32 = 1;
override target_words: u32 = 1;

@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read_write> transposed: array<u32>;

// [row][two channels], with a word more in a row so that reads along rows meet different memory banks.
var<workgroup> tile: array<array<u32, 17>, 32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_channel = 32u * workgroup.x;
  let tile_row = 32u * workgroup.y;
  for (var i = thread; i < 512u; i += 256u) { tile[i / 16u][i % 16u] = load(tile_row + i / 16u, first_channel / 2u + i % 16u); }
  workgroupBarrier();
  for (var i = thread; i < 512u; i += 256u) {
    let channel = i / 16u;
    let pair = i % 16u;
    if (first_channel + channel >= channels || tile_row + 2u * pair >= rows) { continue; }
    let shift = 16u * (channel % 2u);
    let low = (tile[2u * pair][channel / 2u] >> shift) & 0xffffu;
    let high = (tile[2u * pair + 1u][channel / 2u] >> shift) & 0xffffu;
    transposed[(first_channel + channel) * target_words + (first_row + tile_row) / 2u + pair] = low | (high << 16u);
  }
}

fn load(row: u32, word: u32) -> u32 {
  if (row >= rows || 2u * word >= channels) { return 0u; }
  return source[row * source_words + word];
}
