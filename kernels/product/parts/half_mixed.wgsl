// is: mixed
@group(0) @binding(1) var<storage, read_write> mixed: array<vec2<u32>>; // two f16 each

fn mixed_of(x: vec4<f32>) -> vec2<u32> {
  return vec2(pack2x16float(x.xy), pack2x16float(x.zw));
}
