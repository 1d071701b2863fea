/**
 * Writing a quantized model back as a Hugging Face directory in f16, so that any other tool can judge the weights.
 *
 * @module
 */
import { join } from "node:path";
import { bytesOf } from "./numbers.ts";
import { CARRIED_FILES, carriedTensors, type PackedCheckpoint } from "./packed_checkpoint.ts";
import { writeSafetensors } from "./safetensors_writer.ts";

/**
 * Writes `directory` beside its place and renames it when it is whole. Decoded weights are rounded to f16; tensors
 * that weren't quantized are copied.
 *
 * @throws {RangeError} when a decoded weight lies beyond the range of f16
 */
export async function writeHuggingFaceDirectory(
  checkpoint: PackedCheckpoint,
  directory: string,
  onProgress: (share: number, step: string) => void = () => {},
): Promise<void> {
  const beside = `${directory}.partial-${Deno.pid}`;
  await Deno.mkdir(beside, { recursive: true });
  try {
    for (const file of CARRIED_FILES) {
      const text = await checkpoint.readText(file);
      if (text !== undefined) await Deno.writeTextFile(join(beside, file), text);
    }
    let done = 0;
    const decoded = Array.from(checkpoint.packed, ([name, { rows, channels }]) => ({
      name: `${name}.weight`,
      dtype: "F16" as const,
      shape: [rows, channels],
      async bytes() {
        onProgress(done++ / checkpoint.packed.size, name);
        return toF16Bytes(name, await checkpoint.read(`${name}.weight`, [rows, channels]));
      },
    }));
    const carried = carriedTensors(checkpoint, checkpoint.packed);
    await writeSafetensors(join(beside, "model.safetensors"), [...carried, ...decoded], { format: "pt" });
    await Deno.rename(beside, directory);
  } catch (error) {
    await Deno.remove(beside, { recursive: true }).catch(() => {});
    throw error;
  }
}

function toF16Bytes(name: string, weights: Float32Array): Uint8Array {
  const halves = Float16Array.from(weights);
  const bad = halves.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw new RangeError(`${name}: weight ${bad} is ${weights[bad]}, must be within the range of f16`);
  return bytesOf(halves);
}
