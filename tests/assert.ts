/**
 * Assertions of Deno's standard library, typed: the npm package that carries them has no declarations.
 *
 * @module
 */
import * as untyped from "@std/assert";

type ErrorClass = abstract new (...args: never[]) => Error;

interface Assertions {
  assert(condition: unknown, message?: string): asserts condition;
  assertEquals<T>(actual: T, expected: T, message?: string): void;
  assertAlmostEquals(actual: number, expected: number, tolerance?: number, message?: string): void;
  assertStringIncludes(actual: string, expected: string, message?: string): void;
  assertThrows(run: () => unknown, kind: ErrorClass, includes?: string, message?: string): Error;
  assertRejects(run: () => Promise<unknown>, kind: ErrorClass, includes?: string, message?: string): Promise<Error>;
}

const typed: Assertions = untyped;

export const assert: Assertions["assert"] = typed.assert;
export const assertEquals: Assertions["assertEquals"] = typed.assertEquals;
export const assertAlmostEquals: Assertions["assertAlmostEquals"] = typed.assertAlmostEquals;
export const assertStringIncludes: Assertions["assertStringIncludes"] = typed.assertStringIncludes;
export const assertThrows: Assertions["assertThrows"] = typed.assertThrows;
export const assertRejects: Assertions["assertRejects"] = typed.assertRejects;

/**
 * Asserts that arrays are equally long and differ by at most `tolerance` in every element; NaN fails.
 */
export function assertClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  assertEquals(actual.length, expected.length, "lengths differ");
  for (let i = 0; i < actual.length; i++) {
    if (!(Math.abs(actual[i] - expected[i]) <= tolerance)) {
      throw new untyped.AssertionError(`element ${i} is ${actual[i]}, must be ${expected[i]} within ${tolerance}`);
    }
  }
}
