// What kernels write four at a time, in f32 or, for products that take f16, in f16 already.

/** The part of a shader by which it writes: f32, or f16 where a unit is given. */
export function foursPart(unit: number | undefined): "float_fours" | "half_fours" {
  return unit === undefined ? "float_fours" : "half_fours";
}

/** Values of the overrides that this part has. */
export function foursConstants(unit: number | undefined): Record<string, number> {
  return unit === undefined ? {} : { half_unit: unit };
}

/** @throws {RangeError} for a number that isn't a multiple of 4 */
export function checkFours(what: string, value: number): void {
  if (value % 4 !== 0) throw new RangeError(`${what} is ${value}, must be a multiple of 4`);
}
