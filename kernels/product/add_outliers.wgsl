// Adds outlier residuals to f16 weights in memory: the sparse part of the two-pass product.
//
// Bindings:
//   0 outlier_planes  u32   row starts [rows + 1], channels u16, residuals f16 at outlier_residuals
//   1 weights         u32 [rows, row_words]  two f16 each
//
// Mapping: one thread a row, so that no two threads write the same word.
override rows: u32 = 1;
override row_words: u32 = 1;
override outlier_residuals: u32 = 1;
override workgroup_size: u32 = 64;

@group(0) @binding(0) var<storage, read> outlier_planes: array<u32>;
@group(0) @binding(1) var<storage, read_write> weights: array<u32>;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= rows) { return; }
  for (var i = outlier_planes[row]; i < outlier_planes[row + 1u]; i++) {
    let channel = (outlier_planes[rows + 1u + i / 2u] >> (16u * (i % 2u))) & 0xffffu;
    let residual = unpack2x16float(outlier_planes[outlier_residuals + i / 2u] >> (16u * (i % 2u))).x;
    let at = row * row_words + channel / 2u;
    let pair = unpack2x16float(weights[at]);
    weights[at] = pack2x16float(pair + select(vec2(residual, 0.0), vec2(0.0, residual), channel % 2u == 1u));
  }
}
