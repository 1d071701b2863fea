// Puts the groups of channels of a matrix into the order of quantization, in place.
//
//   x[W p + k] becomes x[W group_order[p] + k], k < W = width, for every line of the matrix: a line holds one element of
//   each channel
//
// Bindings (P = groups of W channels):
//   0 cycles  u32 [P]: the positions in the order in which each takes the next one's group; bit 31 marks the first of a
//                      cycle, whose own group the last one takes
//   1 x       f32 [W P, lines] where channel_stride = lines, line_stride = 1
//             f32 [lines, W P] where channel_stride = 1, line_stride = W P
//
// Mapping: a thread a line and one k of all groups; neighbours have neighbouring addresses, and no other thread moves
// what a thread moves.
override width: u32 = 16;
override lines: u32 = 1;
override channel_stride: u32 = 1;
override line_stride: u32 = 16;

@group(0) @binding(0) var<storage, read> cycles: array<u32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;

const FIRST_OF_CYCLE = 0x80000000u;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>) {
  let index = id.y * count.x * 64u + id.x;
  if (index >= width * lines) { return; }
  let k = select(index / lines, index % width, channel_stride == 1u);
  let line = select(index % lines, index / width, channel_stride == 1u);
  let start = k * channel_stride + line * line_stride;
  var held = 0.0;
  var before = start;
  for (var i = 0u; i < arrayLength(&cycles); i++) {
    let word = cycles[i];
    let at = start + width * (word & ~FIRST_OF_CYCLE) * channel_stride;
    let value = x[at];
    if ((word & FIRST_OF_CYCLE) == 0u) {
      x[before] = value;
    } else {
      if (i > 0u) { x[before] = held; }
      held = value;
    }
    before = at;
  }
  x[before] = held;
}
