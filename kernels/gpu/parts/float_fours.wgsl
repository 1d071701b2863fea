// is: fours
// Four values that a kernel writes, in f32.
alias Four = vec4<f32>;

fn four_of(x: vec4<f32>) -> Four {
  return x;
}
