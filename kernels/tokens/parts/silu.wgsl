// silu(gate) up = gate / (1 + exp(-gate)) up; the limit keeps exp finite where the quotient is 0 in f32 anyway.
fn silu_product(gate: f32, up: f32) -> f32 {
  return gate / (1.0 + exp(-max(gate, -88.0))) * up;
}

fn silu_products(gate: vec4<f32>, up: vec4<f32>) -> vec4<f32> {
  return vec4(
    silu_product(gate.x, up.x),
    silu_product(gate.y, up.y),
    silu_product(gate.z, up.z),
    silu_product(gate.w, up.w),
  );
}
