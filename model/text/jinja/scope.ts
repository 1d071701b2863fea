// Names of a template and their values.
import type { Budget } from "./budget.ts";
import type { Value } from "./value.ts";

/** A scope: names that are set in it hide those of the scopes around it. */
export interface Scope {
  readonly names: Map<string, Value>;
  readonly around?: Scope;
  /** What is left of what the template may take. */
  readonly budget: Budget;
}

export function within(around: Scope, names: Iterable<readonly [string, Value]> = []): Scope {
  return { names: new Map(names), around, budget: around.budget };
}

/** Value of a name; undefined where no scope has it. */
export function lookUp(scope: Scope, name: string): Value {
  for (let at: Scope | undefined = scope; at; at = at.around) {
    if (at.names.has(name)) return at.names.get(name);
  }
  return undefined;
}
