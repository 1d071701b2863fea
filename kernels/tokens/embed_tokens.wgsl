// needs: token_range
// Embeddings of tokens: y[t, i] = embedding[tokens[t], i], for the tokens whose row is in this slab of the embedding.
//
// Bindings (T = range.tokens):
//   0 range      uniform, see tokens/parts/token_range.wgsl
//   1 tokens     u32 [T]
//   2 embedding  u32 [rows, row_words]   two f16 each, of the rows from `first_row` on
//   3 y          f32 [T, hidden]
//
// Mapping: a thread two elements; workgroup.z is the token.
override rows: u32 = 1;
override first_row: u32 = 0;
override row_words: u32 = 4;
override hidden: u32 = 1;

@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> embedding: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (2u * id.x >= hidden || id.z >= range.tokens) { return; }
  let row = tokens[id.z] - first_row;
  if (tokens[id.z] < first_row || row >= rows) { return; }
  let pair = unpack2x16float(embedding[row * row_words + id.x]);
  let at = id.z * hidden + 2u * id.x;
  y[at] = pair.x;
  if (2u * id.x + 1u < hidden) { y[at + 1u] = pair.y; }
}
