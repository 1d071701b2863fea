// is: fours
// Four values that a kernel writes, in f16 and in units of `half_unit`.
override half_unit: f32 = 1.0;

alias Four = vec2<u32>;

fn four_of(x: vec4<f32>) -> Four {
  return vec2(pack2x16float(x.xy / half_unit), pack2x16float(x.zw / half_unit));
}
