/**
 * Types of Deno's standard library, as far as it is used here: the npm package that carries it (deno.json) has none.
 */
declare module "@std/assert" {
  type ErrorClass = abstract new (...args: never[]) => Error;

  export class AssertionError extends Error {}
  export function equal(a: unknown, b: unknown): boolean;
  export function assert(condition: unknown, message?: string): asserts condition;
  export function assertEquals<T>(actual: T, expected: T, message?: string): void;
  export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, message?: string): void;
  export function assertStringIncludes(actual: string, expected: string, message?: string): void;
  export function assertThrows(run: () => unknown, kind: ErrorClass, includes?: string, message?: string): Error;
  export function assertRejects(
    run: () => Promise<unknown>,
    kind: ErrorClass,
    includes?: string,
    message?: string,
  ): Promise<Error>;
}

declare module "@std/cli/parse-args" {
  interface ParseOptions {
    readonly boolean: readonly string[];
    readonly string: readonly string[];
  }

  /** Options by name, the other arguments under `_`; options that are absent are `false` or missing. */
  export function parseArgs(
    args: readonly string[],
    options: ParseOptions,
  ): { _: string[]; [option: string]: string | boolean | string[] };
}

declare module "@std/collections/chunk" {
  export function chunk<T>(values: readonly T[], size: number): T[][];
}

declare module "@std/path" {
  export function basename(path: string): string;
  export function dirname(path: string): string;
  export function fromFileUrl(url: string | URL): string;
  export function join(...paths: readonly [string, ...string[]]): string;
  export function relative(from: string, to: string): string;
  export function resolve(...paths: readonly string[]): string;
  export function toFileUrl(path: string): URL;
}
