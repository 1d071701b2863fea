// needs: group_grid
// is: rounding
// The error of a group's codes where its weights are rounded independently.

fn squares(weights: vec4<f32>, grid: Grid) -> vec4<f32> {
  let error = weights - nearest_values(weights, grid);
  return error * error;
}

fn rounding_error(weights: Values, grid: Grid) -> f32 {
  let sums = squares(weights[0], grid) + squares(weights[1], grid) + squares(weights[2], grid) +
    squares(weights[3], grid);
  return (sums.x + sums.y) + (sums.z + sums.w);
}
