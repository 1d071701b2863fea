// needs: token_range
// Adding up what fused_few.wgsl, matrix_few.wgsl, matrix_tile.wgsl and fused_several.wgsl leave of each part of the
// channels, and the outliers, for four rows: sum over splits of partials[split, t, r] + sum over outliers o of row r of
// residual[o] x[t, channel[o]].
//
// Bindings:
//   0 range           uniform, see tokens/parts/token_range.wgsl
//   1 partials        vec4<f32> [splits, tokens of the dispatch, rows rounded up to fours]
//   2 outlier_planes  u32  row starts [rows + 1], channels u16, residuals f16 at outlier_residuals
//   3 x               f32 [tokens, channels], as bits; or f16, in units of x_unit
override rows: u32 = 1;
override channels: u32 = 4;
override splits: u32 = 1;
override tokens: u32 = 16;
override outlier_residuals: u32 = 0; // first word of the residuals, 0 where there are no outliers
override x_unit: f32 = 0.0; // 0: f32

@group(0) @binding(1) var<storage, read> partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> outlier_planes: array<u32>;
@group(0) @binding(3) var<storage, read> x: array<u32>;

// Four loads are on their way at a time.
fn sum_four(quad: u32, token: u32) -> vec4<f32> {
  let quads = (rows + 3u) / 4u;
  let stride = (range.tokens + tokens - 1u) / tokens * tokens * quads;
  let first = token * quads + quad;
  var sum = vec4(0.0);
  for (var split = 0u; split < splits; split += 4u) {
    let last = splits - 1u - split;
    let a = partials[first + split * stride];
    let b = partials[first + (split + min(1u, last)) * stride];
    let c = partials[first + (split + min(2u, last)) * stride];
    let d = partials[first + (split + min(3u, last)) * stride];
    sum += (a + select(vec4(0.0), b, last >= 1u)) + (select(vec4(0.0), c, last >= 2u) + select(vec4(0.0), d, last >= 3u));
  }
  if (outlier_residuals == 0u) { return sum; }
  let row = 4u * quad;
  return sum + vec4(
    outliers_of(row, token),
    outliers_of(row + 1u, token),
    outliers_of(row + 2u, token),
    outliers_of(row + 3u, token),
  );
}

fn outliers_of(wanted: u32, token: u32) -> f32 {
  let row = min(wanted, rows - 1u);
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
