// Registering tests that run in Deno and in a browser alike.

/** A test. */
export interface Test {
  readonly name: string;
  /** Throws or rejects where it fails. */
  readonly run: () => Promise<void> | void;
}

/** Tests of the files imported so far, in a browser; under `deno test` that has them all. */
export const browserTests: Test[] = [];

/** Registers a test. */
export function test(name: string, run: () => Promise<void> | void): void {
  if ("Deno" in globalThis) Deno.test(name, run);
  else browserTests.push({ name, run });
}
