// vec2(cos, sin) of an angle in radians, |angle| <= 2^17, to about 1e-7. WGSL itself promises only 2^-11, and that between
// -pi and pi, whereas a rotary angle grows with the position.
fn cos_sin(angle: f32) -> vec2<f32> {
  // Quarter turns are taken off with pi / 2 in parts of 7 bits, so that every product and difference but the last is
  // exact, whether or not the device fuses them.
  let quarters = round(angle * 0.636619772);
  var r = angle - quarters * 1.5625;
  r = r - quarters * 0.0081787109375;
  r = r - quarters * 0.00011730194091796875;
  r = r - quarters * 3.1391647326017846e-7;
  let z = r * r;
  let sin_r = fma(r * z, fma(z, fma(z, -1.9515295891e-4, 8.3321608736e-3), -1.6666654611e-1), r);
  let cos_tail = fma(z, fma(z, 2.443315711809948e-5, -1.388731625493765e-3), 4.166664568298827e-2);
  let cos_r = fma(z * z, cos_tail, fma(z, -0.5, 1.0));
  let turned = select(vec2(cos_r, sin_r), vec2(-sin_r, cos_r), (i32(quarters) & 1) == 1);
  return select(turned, -turned, (i32(quarters) & 2) == 2);
}
