// An engine by the name of its model.
import { createEngine, type Engine, type EngineOptions } from "./engine/engine.ts";
import { openModel } from "./load.ts";

/**
 * Loads a model onto the GPU: `tiny`, a directory, a packed file, a GGUF file or `hf:ORG/NAME`.
 *
 * ```ts
 * import { loadEngine } from "@twobit/twobit";
 * import { assert } from "@std/assert";
 *
 * using engine = await loadEngine("tiny");
 * let text = "";
 * for await (const piece of engine.generate("Fellow citizens", { maxTokens: 8 })) text += piece;
 * assert(text.length > 0);
 * ```
 *
 * @throws {SyntaxError} when the model can't be read
 * @throws {OutOfMemoryError} with what the model needs, when the device has no room
 */
export async function loadEngine(name: string, options: EngineOptions = {}): Promise<Engine> {
  using checkpoint = await openModel(name);
  return await createEngine(checkpoint, options);
}
