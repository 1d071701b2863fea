// Matrix products on the CPU: views on f32 matrices.

/** A matrix inside an array: element (r, c) is data[offset + r * rowStride + c * columnStride]. */
export interface MatrixView {
  readonly data: Float32Array;
  /** Index of element (0, 0). */
  readonly offset: number;
  readonly rows: number;
  readonly columns: number;
  /** Distance of elements of neighbouring rows. */
  readonly rowStride: number;
  /** Distance of elements of neighbouring columns. */
  readonly columnStride: number;
}

/** exp((value - shift) * scale) of each value: f64, in memory that the next call uses again. */
export type Exponentials = (values: Float32Array, shift: number, scale: number) => Float64Array;

/** What takes the CPU's time. */
export interface MatMul {
  /** Computes y = x wᵀ: y[t, n] = sum over k of x[t, k] * w[n, k]. Overwrites y. */
  (x: MatrixView, w: MatrixView, y: MatrixView): void;
  /** What is quicker than Math.exp, and as exact; where there is such. */
  readonly exponentials?: Exponentials;
}

/** {@linkcode Exponentials} by a product's own, or by Math.exp. */
export function exponentials(matmul: MatMul, values: Float32Array, shift: number, scale: number): Float64Array {
  return matmul.exponentials?.(values, shift, scale) ??
    Float64Array.from(values, (value) => Math.exp((value - shift) * scale));
}

/** A row-major matrix that fills an array from `offset`. */
export function rowMajor(data: Float32Array, rows: number, columns: number, offset = 0): MatrixView {
  return { data, offset, rows, columns, rowStride: columns, columnStride: 1 };
}

/** The same elements with rows and columns exchanged. */
export function transpose({ data, offset, rows, columns, rowStride, columnStride }: MatrixView): MatrixView {
  return { data, offset, rows: columns, columns: rows, rowStride: columnStride, columnStride: rowStride };
}

/** Checks that shapes of a product fit. @throws {TypeError} with the shapes */
export function checkProduct(x: MatrixView, w: MatrixView, y: MatrixView): void {
  if (x.columns !== w.columns || y.rows !== x.rows || y.columns !== w.rows) {
    throw new TypeError(
      `product of [${x.rows}, ${x.columns}] and transposed [${w.rows}, ${w.columns}] into [${y.rows}, ${y.columns}], ` +
        `must be [t, k], [n, k] into [t, n]`,
    );
  }
}
