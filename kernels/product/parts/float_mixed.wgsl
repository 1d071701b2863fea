// is: mixed
@group(0) @binding(1) var<storage, read_write> mixed: array<vec4<f32>>;

fn mixed_of(x: vec4<f32>) -> vec4<f32> {
  return x;
}
