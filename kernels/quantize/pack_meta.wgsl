// The meta plane (quant/meta.ts): scale and zero codes of four groups and the pick field of their runs.
//
//   |pick 4b|zero 3b, scale 4b| x 4, group 0 lowest
//
// Bindings (G = groups with padding):
//   0 group_codes  u32 [G, rows]: scale code 4b, zero code 3b; more of outliers
//   1 picks        u32 [runs, rows]: see pick_refined.wgsl
//   2 meta_words   u32 [rows / 4, G / 4, 4]
//
// Mapping: a thread a word; workgroup.y is the word of the row.
override rows: u32 = 1;
override groups: u32 = 8;
override refine_every: u32 = 8; // 0 for none

@group(0) @binding(0) var<storage, read> group_codes: array<u32>;
@group(0) @binding(1) var<storage, read> picks: array<u32>;
@group(0) @binding(2) var<storage, read_write> meta_words: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= rows) { return; }
  let first = 4u * id.y;
  let codes = codes_of(first, row) | (codes_of(first + 1u, row) << 7u) | (codes_of(first + 2u, row) << 14u) |
    (codes_of(first + 3u, row) << 21u);
  meta_words[(row / 4u * (groups / 4u) + id.y) * 4u + row % 4u] = codes | (pick_field(row, first) << 28u);
}

fn codes_of(group: u32, row: u32) -> u32 {
  return group_codes[group * rows + row] & 0x7fu;
}

fn pick_field(row: u32, first: u32) -> u32 {
  if (refine_every <= 1u) { return 0u; }
  let run = first / max(refine_every, 1u);
  if (refine_every == 2u) { return picks[run * rows + row] | (picks[(run + 1u) * rows + row] << 1u); }
  return picks[run * rows + row];
}
