// Assertions of Deno's standard library, and one of our own.
import { assertEquals, AssertionError } from "@std/assert";

export {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";

/** Asserts that arrays are equally long and differ by at most `tolerance` in every element; NaN fails. */
export function assertClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  assertEquals(actual.length, expected.length, "lengths differ");
  for (let i = 0; i < actual.length; i++) {
    if (!(Math.abs(actual[i] - expected[i]) <= tolerance)) {
      throw new AssertionError(`element ${i} is ${actual[i]}, must be ${expected[i]} within ${tolerance}`);
    }
  }
}
