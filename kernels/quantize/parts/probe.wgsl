// needs: free_rounding
// Looking at a group by itself (quant/probe.ts): the best of the scales near its span and of the zeros in the middle.

// Lowest and highest weight, outliers aside.
fn bounds_of(weights: Values) -> vec2<f32> {
  let low = min(min(lows(0u, weights[0]), lows(1u, weights[1])), min(lows(2u, weights[2]), lows(3u, weights[3])));
  let high = max(max(highs(0u, weights[0]), highs(1u, weights[1])), max(highs(2u, weights[2]), highs(3u, weights[3])));
  return vec2(min(min(low.x, low.y), min(low.z, low.w)), max(max(high.x, high.y), max(high.z, high.w)));
}

const LARGEST = 3.4028234e38;

fn lows(four: u32, weights: vec4<f32>) -> vec4<f32> {
  return select(weights, vec4(LARGEST), are_outliers(four));
}

fn highs(four: u32, weights: vec4<f32>) -> vec4<f32> {
  return select(weights, vec4(-LARGEST), are_outliers(four));
}

// A 36th of what the codes must span.
fn unit_of(bounds: vec2<f32>) -> f32 {
  return max(bounds.y - bounds.x, max(bounds.y, -bounds.x) * (3.0 / 2.375)) / 36.0;
}

fn probe(weights: Values, bounds: vec2<f32>, unit: f32, is_refined: bool) -> Choice {
  var best = Choice(rounding_error(weights, make_grid(0.0, 0u, is_refined)), 0u, 0u);
  let first = select(9u, 7u, is_refined);
  let last = select(13u, 12u, is_refined);
  let reach = select(1u, 2u, is_refined);
  let middle = 0.5 * (bounds.x + bounds.y);
  for (var scale_code = first; scale_code <= last; scale_code++) {
    let scale = f32(scale_code) * unit;
    let centred = nearest_zero(middle, scale, is_refined);
    let last_zero = min(ZERO_CODES - 1u, centred + reach);
    for (var zero_code = max(centred, reach) - reach; zero_code <= last_zero; zero_code++) {
      let error = rounding_error(weights, make_grid(scale, zero_code, is_refined));
      if (error < best.error) { best = Choice(error, scale_code, zero_code); }
    }
  }
  // Beyond f16 whichever code it is; the errors of such weights may overflow, and none is then the least.
  if (unit > 1.0e6) { best.scale_code = last; }
  return best;
}

// Code of the zero that puts the middle of the weights amid the codes.
fn nearest_zero(middle: f32, scale: f32, is_refined: bool) -> u32 {
  let wanted = select(1.5, 1.875, is_refined) - middle / scale;
  let code = floor((wanted - select(0.625, 1.21875, is_refined)) / select(0.25, 0.1875, is_refined) + 0.5);
  return u32(clamp(code, 0.0, f32(ZERO_CODES - 1u)));
}
