// Eight values as f16, the first in the low half of the first word.
fn halves_of(low: vec4<f32>, high: vec4<f32>) -> vec4<u32> {
  return vec4(pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw));
}

fn low_half(words: vec4<u32>) -> vec4<f32> {
  return vec4(unpack2x16float(words.x), unpack2x16float(words.y));
}

fn high_half(words: vec4<u32>) -> vec4<f32> {
  return vec4(unpack2x16float(words.z), unpack2x16float(words.w));
}

fn dot_halves(words: vec4<u32>, low: vec4<f32>, high: vec4<f32>) -> f32 {
  return dot(low_half(words), low) + dot(high_half(words), high);
}
