// needs: token_range outputs
// Adds up what fused_few.wgsl, matrix_few.wgsl and fused_several.wgsl leave of each part of the channels, and the
// outliers: y[t, r] = sum over splits of partials[split, t, r] + sum over outliers o of row r of residual[o]
// x[t, channel[o]].
//
// Bindings:
//   0 range           uniform, see tokens/parts/token_range.wgsl
//   1 partials        f32 [splits, tokens of the dispatch, rows rounded up to fours]
//   2 outlier_planes  u32  row starts [rows + 1], channels u16, residuals f16 at outlier_residuals
//   3 x               f32 [tokens, channels], as bits; or f16, in units of x_unit
//   4 y               f32 [tokens, token_rows], of which `rows` from `first_row` on are written; or silu_product's, half as
//                     many
//
// Mapping: a thread an element of y; workgroup.y is the token. Four loads are on their way at a time.
override rows: u32 = 1;
override channels: u32 = 4;
override splits: u32 = 1;
override tokens: u32 = 16;
override token_rows: u32 = 1;
override first_row: u32 = 0;
override output_kind: u32 = 0; // see product/parts/outputs.wgsl
override outlier_residuals: u32 = 0; // first word of the residuals, 0 where there are no outliers
override x_unit: f32 = 0.0; // 0: f32

@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read> outlier_planes: array<u32>;
@group(0) @binding(3) var<storage, read> x: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  let token = id.y;
  if (row >= rows / rows_per_output() || token >= range.tokens) { return; }
  var sum = sum_row(row, token);
  if (output_kind == SILU_PRODUCT) { sum = silu_product(sum, sum_row(row + rows / 2u, token)); }
  let at = token * token_rows + first_row + row;
  if (output_kind == ADD) { y[at] += sum; } else { y[at] = sum; }
}

fn sum_row(row: u32, token: u32) -> f32 {
  let stride = (range.tokens + tokens - 1u) / tokens * tokens * ((rows + 3u) / 4u * 4u);
  let first = token * ((rows + 3u) / 4u * 4u) + row;
  var sum = 0.0;
  for (var split = 0u; split < splits; split += 4u) {
    let i = min(vec4(split) + vec4(0u, 1u, 2u, 3u), vec4(splits - 1u));
    let at = vec4(first) + i * stride;
    let four = vec4(partials[at.x], partials[at.y], partials[at.z], partials[at.w]);
    sum += dot(four, select(vec4(0.0), vec4(1.0), vec4(split) + vec4(0u, 1u, 2u, 3u) < vec4(splits)));
  }
  if (outlier_residuals != 0u) { sum += outliers_of(row, token); }
  return sum;
}

fn outliers_of(row: u32, token: u32) -> f32 {
  let end = outlier_planes[row + 1u];
  var sum = 0.0;
  for (var i = outlier_planes[row]; i < end; i += 4u) {
    let a = outlier_term(i, end, token);
    let b = outlier_term(i + 1u, end, token);
    let c = outlier_term(i + 2u, end, token);
    let d = outlier_term(i + 3u, end, token);
    sum += (a + b) + (c + d);
  }
  return sum;
}

fn outlier_term(wanted: u32, end: u32, token: u32) -> f32 {
  let i = min(wanted, end - 1u);
  let shift = 16u * (i % 2u);
  let channel = (outlier_planes[rows + 1u + i / 2u] >> shift) & 0xffffu;
  let residual = unpack2x16float(outlier_planes[outlier_residuals + i / 2u] >> shift).x;
  return select(0.0, residual * x_at(token * channels + channel), wanted < end);
}

fn x_at(i: u32) -> f32 {
  if (x_unit == 0.0) { return bitcast<f32>(x[i]); }
  return x_unit * unpack2x16float(x[i / 2u] >> (16u * (i % 2u))).x;
}
