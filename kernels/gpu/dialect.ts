/**
 * WGSL as compilers want it.
 *
 * @module
 */
import type { Capabilities } from "./capabilities.ts";

/** What a shader uses beyond the language's core, by the name that an `enable` line has for it. */
const EXTENSIONS: readonly (readonly [name: string, use: RegExp])[] = [
  ["f16", /\bf16\b/],
  ["subgroups", /\bsubgroup[A-Z]\w*\(/],
  ["subgroup_matrix", /\bsubgroup_matrix_/],
];

/** A shader with the `enable` lines for what it uses, where the compiler wants them; Dawn has an older name for one. */
export function inDialect(
  code: string,
  { enableLines, matrixFeature }: Pick<Capabilities, "enableLines" | "matrixFeature">,
): string {
  if (!enableLines) return code;
  const used = EXTENSIONS.flatMap(([name, use]) => use.test(code.replace(/\/\/.*/g, "")) ? [name] : []);
  const names = used.map((name) => name === "subgroup_matrix" ? matrixFeature?.replaceAll("-", "_") ?? name : name);
  return names.map((name) => `enable ${name};\n`).join("") + code;
}
