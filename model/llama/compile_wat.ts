// Compiling WebAssembly's text.
import loadWabt from "wabt";

/** Compiles a module with 128-bit SIMD that imports nothing, and returns what it exports, a memory among it. */
export async function compileWat<T>(name: string, text: string): Promise<T & { readonly memory: WebAssembly.Memory }> {
  const wabt = await loadWabt();
  const { buffer } = wabt.parseWat(name, text, { simd: true, relaxed_simd: true }).toBinary({});
  const { instance } = await WebAssembly.instantiate(new Uint8Array(buffer));
  return instance.exports as unknown as T & { readonly memory: WebAssembly.Memory };
}

/** A module's memory, grown to so many bytes. */
export function growMemory(memory: WebAssembly.Memory, bytes: number): ArrayBufferLike {
  const missing = bytes - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / 65536));
  return memory.buffer;
}
