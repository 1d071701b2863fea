// The range of f16.

/** Largest finite f16. */
export const MAX_F16 = 65504;
