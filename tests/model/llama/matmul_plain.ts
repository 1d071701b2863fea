// The plain product that every faster one is checked against.
import { checkProduct, type MatMul } from "../../../model/llama/matmul.ts";

/** y = x wᵀ in three loops, summed in f64. */
export const matmulPlain: MatMul = (x, w, y) => {
  checkProduct(x, w, y);
  for (let t = 0; t < x.rows; t++) {
    for (let n = 0; n < w.rows; n++) {
      let sum = 0;
      let xAt = x.offset + t * x.rowStride;
      let wAt = w.offset + n * w.rowStride;
      for (let k = 0; k < x.columns; k++, xAt += x.columnStride, wAt += w.columnStride) {
        sum += x.data[xAt] * w.data[wAt];
      }
      y.data[y.offset + t * y.rowStride + n * y.columnStride] = sum;
    }
  }
};
