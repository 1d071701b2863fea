// needs: group_grid
// is: rounding
// The error of a group's codes where weights are rounded independently and channels count differently. The kernel fills
// `importance`.

var<private> importance: Values;

fn squares(weights: vec4<f32>, counts: vec4<f32>, grid: Grid) -> vec4<f32> {
  let error = weights - nearest_values(weights, grid);
  return error * error * counts;
}

fn rounding_error(weights: Values, grid: Grid) -> f32 {
  let sums = squares(weights[0], importance[0], grid) + squares(weights[1], importance[1], grid) +
    squares(weights[2], importance[2], grid) + squares(weights[3], importance[3], grid);
  return (sums.x + sums.y) + (sums.z + sums.w);
}
