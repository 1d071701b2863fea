// What a CPU reference gives: exact values and how far a kernel may be from them.

/** A product and, element by element, how far a kernel's f32 result may be from it. */
export interface BoundedProduct {
  /** The exact product. */
  readonly y: Float64Array;
  /** Largest distance of a right result, element by element. */
  readonly bound: Float64Array;
}
