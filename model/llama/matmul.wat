;; y = x wᵀ for packed panels: the inner kernel of matmul_simd.ts.
;;
;;   x  f32 [xPanels][k][5]   panels of 5 rows of x, depth-major; k is a multiple of 4
;;   w  f32 [wPanels][k][8]   panels of 8 rows of w, depth-major
;;   y  f32 [5 * xPanels][8 * wPanels], row-major
;;
;; One turn of $depth adds four 5 x 8 outer products to ten accumulators; matmul_simd.ts writes it out for STEPS. Each
;; y is summed in ascending k, fused where the processor can, as every x86-64 since 2013 and every 64-bit Arm can:
;; results are the same on all of these.
(module
  (memory (export "memory") 1)
  (func (export "gemm")
    (param $x i32) (param $w i32) (param $y i32) (param $xPanels i32) (param $wPanels i32) (param $k i32)
    (local $xAt i32) (local $xEnd i32) (local $wAt i32) (local $wPanelEnd i32) (local $wEnd i32)
    (local $yAt i32) (local $yStride i32)
    (local $x4 v128) (local $a v128) (local $b0 v128) (local $b1 v128)
    (local $c00 v128) (local $c01 v128)
    (local $c10 v128) (local $c11 v128)
    (local $c20 v128) (local $c21 v128)
    (local $c30 v128) (local $c31 v128)
    (local $c40 v128) (local $c41 v128)
    (local.set $yStride (i32.mul (local.get $wPanels) (i32.const 32)))
    (local.set $xEnd (i32.add (local.get $x) (i32.mul (i32.mul (local.get $xPanels) (local.get $k)) (i32.const 20))))
    (local.set $wEnd (i32.add (local.get $w) (i32.mul (local.get $yStride) (local.get $k))))
    (loop $columns
      (local.set $xAt (local.get $x))
      (local.set $yAt (local.get $y))
      (local.set $wPanelEnd (i32.add (local.get $w) (i32.mul (local.get $k) (i32.const 32))))
      (loop $rows
        (local.set $wAt (local.get $w))
        (local.set $c00 (v128.const f32x4 0 0 0 0)) (local.set $c01 (v128.const f32x4 0 0 0 0))
        (local.set $c10 (v128.const f32x4 0 0 0 0)) (local.set $c11 (v128.const f32x4 0 0 0 0))
        (local.set $c20 (v128.const f32x4 0 0 0 0)) (local.set $c21 (v128.const f32x4 0 0 0 0))
        (local.set $c30 (v128.const f32x4 0 0 0 0)) (local.set $c31 (v128.const f32x4 0 0 0 0))
        (local.set $c40 (v128.const f32x4 0 0 0 0)) (local.set $c41 (v128.const f32x4 0 0 0 0))
        (loop $depth
          STEPS
          (local.set $xAt (i32.add (local.get $xAt) (i32.const 80)))
          (local.set $wAt (i32.add (local.get $wAt) (i32.const 128)))
          (br_if $depth (i32.lt_u (local.get $wAt) (local.get $wPanelEnd))))
        (v128.store (local.get $yAt) (local.get $c00))
        (v128.store offset=16 (local.get $yAt) (local.get $c01))
        (local.set $yAt (i32.add (local.get $yAt) (local.get $yStride)))
        (v128.store (local.get $yAt) (local.get $c10))
        (v128.store offset=16 (local.get $yAt) (local.get $c11))
        (local.set $yAt (i32.add (local.get $yAt) (local.get $yStride)))
        (v128.store (local.get $yAt) (local.get $c20))
        (v128.store offset=16 (local.get $yAt) (local.get $c21))
        (local.set $yAt (i32.add (local.get $yAt) (local.get $yStride)))
        (v128.store (local.get $yAt) (local.get $c30))
        (v128.store offset=16 (local.get $yAt) (local.get $c31))
        (local.set $yAt (i32.add (local.get $yAt) (local.get $yStride)))
        (v128.store (local.get $yAt) (local.get $c40))
        (v128.store offset=16 (local.get $yAt) (local.get $c41))
        (local.set $yAt (i32.add (local.get $yAt) (local.get $yStride)))
        (br_if $rows (i32.lt_u (local.get $xAt) (local.get $xEnd))))
      (local.set $w (local.get $wPanelEnd))
      (local.set $y (i32.add (local.get $y) (i32.const 32)))
      (br_if $columns (i32.lt_u (local.get $w) (local.get $wEnd))))))
