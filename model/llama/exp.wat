;; exp((value - shift) * scale) of f32 values as f64, two at a time: the inner kernel of exp_simd.ts.
;;
;; exp(x) = 2^n exp(r), n the whole number nearest to x / ln 2 and |r| <= ln 2 / 2. Adding 3 * 2^51 leaves n in the lowest
;; bits, which become the exponent; ln 2 is taken off in two parts, so that r is exact. SERIES stands for Taylor's series
;; of exp(r). Below -708 and above 709 it is exp of these, which is 0 and infinity in f32; NaN stays NaN.
(module
  (memory (export "memory") 1)
  (func (export "exps") (param $from i32) (param $to i32) (param $count i32) (param $shift f64) (param $scale f64)
    (local $end i32) (local $x v128) (local $n v128) (local $r v128) (local $whole v128)
    (local.set $end (i32.add (local.get $from) (i32.shl (local.get $count) (i32.const 2))))
    (loop $pairs
      (local.set $x (f64x2.promote_low_f32x4 (v128.load64_zero (local.get $from))))
      (local.set $x (f64x2.mul (f64x2.sub (local.get $x) (f64x2.splat (local.get $shift))) (f64x2.splat (local.get $scale))))
      (local.set $x (f64x2.pmax (local.get $x) (v128.const f64x2 -708 -708)))
      (local.set $x (f64x2.pmin (local.get $x) (v128.const f64x2 709 709)))
      (local.set $n (f64x2.relaxed_madd (local.get $x)
        (v128.const f64x2 1.4426950408889634 1.4426950408889634)
        (v128.const f64x2 6755399441055744 6755399441055744)))
      (local.set $whole (f64x2.sub (local.get $n) (v128.const f64x2 6755399441055744 6755399441055744)))
      (local.set $r (f64x2.relaxed_nmadd (local.get $whole)
        (v128.const f64x2 0.6931471803691238 0.6931471803691238) (local.get $x)))
      (local.set $r (f64x2.relaxed_nmadd (local.get $whole)
        (v128.const f64x2 1.9082149292705877e-10 1.9082149292705877e-10) (local.get $r)))
      (v128.store (local.get $to) (f64x2.mul
        SERIES
        (i64x2.add (i64x2.shl (local.get $n) (i32.const 52)) (v128.const f64x2 1 1))))
      (local.set $from (i32.add (local.get $from) (i32.const 8)))
      (local.set $to (i32.add (local.get $to) (i32.const 16)))
      (br_if $pairs (i32.lt_u (local.get $from) (local.get $end))))))
