// needs: group_grid
// is: rounding
// The error of a group's codes where its weights are rounded independently.

fn squares(four: u32, weights: vec4<f32>, grid: Grid) -> vec4<f32> {
  let error = weights - rounded_values(four, weights, grid);
  return error * error;
}

fn rounding_error(weights: Values, grid: Grid) -> f32 {
  let sums = squares(0u, weights[0], grid) + squares(1u, weights[1], grid) + squares(2u, weights[2], grid) +
    squares(3u, weights[3], grid);
  return (sums.x + sums.y) + (sums.z + sums.w);
}
