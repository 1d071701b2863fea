// needs: group_grid
// is: rounding
// The error of a group's codes where weights are rounded independently and channels count differently. The kernel fills
// `importance`.

var<private> importance: Values;

fn squares(four: u32, weights: vec4<f32>, counts: vec4<f32>, grid: Grid) -> vec4<f32> {
  let error = weights - rounded_values(four, weights, grid);
  return error * error * counts;
}

fn rounding_error(weights: Values, grid: Grid) -> f32 {
  let sums = squares(0u, weights[0], importance[0], grid) + squares(1u, weights[1], importance[1], grid) +
    squares(2u, weights[2], importance[2], grid) + squares(3u, weights[3], importance[3], grid);
  return (sums.x + sums.y) + (sums.z + sums.w);
}
