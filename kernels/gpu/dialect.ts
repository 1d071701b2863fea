/**
 * Where Deno's WebGPU (wgpu with its compiler naga) and a browser's differ.
 *
 * @module
 */

/** Whether WebGPU is Deno's, not a browser's. */
export const IS_DENO: boolean = "Deno" in globalThis;

/** The shader as browsers want it: with an `enable` line where it uses subgroups. naga, Deno's compiler, rejects that. */
export function withEnableLines(code: string): string {
  return /\bsubgroup[A-Z]\w*\(/.test(code) ? `enable subgroups;\n${code}` : code;
}
