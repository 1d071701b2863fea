// WGSL as compilers want it.
import type { Capabilities } from "./capabilities.ts";

/** What a shader uses beyond the language's core, by the name that an `enable` line has for it. */
const EXTENSIONS: readonly (readonly [name: string, use: RegExp])[] = [
  ["f16", /\bf16\b/],
  ["subgroups", /\bsubgroup[A-Z]\w*[<(]/],
];

/**
 * Lines of a shader that multiplies matrices of subgroups: by the draft's names, and by those that Dawn has had for
 * them. That lanes of a subgroup agree in an index that is made of a thread's is beyond what compilers see.
 */
const MATRIX_LINES = {
  "subgroup-matrix": "enable subgroup_matrix;\ndiagnostic(off, subgroup_matrix_uniformity);\n",
  "chromium-experimental-subgroup-matrix":
    "enable chromium_experimental_subgroup_matrix;\ndiagnostic(off, chromium.subgroup_matrix_uniformity);\n",
};

/** A shader with the lines at its head that the compiler wants for what it uses; naga wants none. */
export function inDialect(
  code: string,
  { enableLines, matrixFeature = "subgroup-matrix" }: Pick<Capabilities, "enableLines" | "matrixFeature">,
): string {
  if (!enableLines) return code;
  const used = EXTENSIONS.flatMap(([name, use]) => use.test(code.replace(/\/\/.*/g, "")) ? [`enable ${name};\n`] : []);
  return used.join("") + (code.includes("subgroup_matrix_left") ? MATRIX_LINES[matrixFeature] : "") + code;
}
