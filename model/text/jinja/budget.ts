// What rendering a template may take: a stranger wrote it.

/** Steps of a template; one that goes through a thousand messages takes some hundred thousand. */
const MAX_STEPS = 1_500_000;

/** Characters of one text within a template. */
const MAX_TEXT = 2 ** 24;

/** Characters that cost as much as a step. */
const CHARACTERS_PER_STEP = 256;

export interface Budget {
  /** Takes some steps. @throws {RangeError} when none are left */
  spend(steps: number): void;
  /** Takes what a text of this length costs, before it is made. @throws {RangeError} when it is too long */
  spendText(length: number): void;
}

export function createBudget(): Budget {
  let left = MAX_STEPS;
  const spend = (steps: number) => {
    left -= steps;
    if (!(left >= 0)) throw new RangeError(`it takes more than ${MAX_STEPS} steps`);
  };
  return {
    spend,
    spendText(length) {
      if (length > MAX_TEXT) {
        throw new RangeError(`it makes a text of ${length} characters, must have at most ${MAX_TEXT}`);
      }
      spend(length / CHARACTERS_PER_STEP);
    },
  };
}
