// Min/max scales: the plain baseline of round-to-nearest and GPTQ.
/** Lowest and highest weight of a group, 0 included. */
export interface Range {
  readonly min: number;
  readonly max: number;
}

/** Scale that spreads a range over `maxCode + 1` codes. */
export function minMaxScale({ min, max }: Range, maxCode: number): number {
  return (max - min) / maxCode;
}

/** Integer zero of a range under a scale: the code that means 0. */
export function integerZero({ min }: Range, scale: number, maxCode: number): number {
  return scale === 0 ? 0 : Math.min(maxCode, Math.floor(-min / scale + 0.5));
}
