// Arguments of a call by the names that a function gives them.
import type { Arguments, Value } from "./value.ts";

/**
 * Values of the named parameters, in order.
 *
 * @param defaults of the last ones
 * @throws {TypeError} for an argument that is missing, is there twice, or that no parameter takes
 */
export function parameters(
  { positional, named }: Arguments,
  names: readonly string[],
  defaults: readonly Value[] = [],
): Value[] {
  if (positional.length > names.length) {
    throw new TypeError(`there are ${positional.length} arguments, must be at most ${names.length}`);
  }
  for (const name of named.keys()) {
    const place = names.indexOf(name);
    if (place < 0 || place < positional.length) throw new TypeError(`argument ${name} is not known, or is there twice`);
  }
  return names.map((name, i) => {
    if (i < positional.length) return positional[i];
    if (named.has(name)) return named.get(name);
    const place = i - (names.length - defaults.length);
    if (place < 0) throw new TypeError(`argument ${name} is missing`);
    return defaults[place];
  });
}
