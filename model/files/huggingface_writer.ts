// Writing a quantized model back as a Hugging Face directory in f16, so that any other tool can judge the weights.
import { join } from "@std/path";
import { unfinished } from "../host/atomic_file.ts";
import { pathExists } from "../host/path_exists.ts";
import { decodeBlocks } from "./carried_blocks.ts";
import { lockPath } from "../host/path_lock.ts";
import { bytesOf, decodeHalves, toF16, WEIGHT_DTYPES } from "./numbers.ts";
import { CARRIED_FILES, carriedTensors, type PackedCheckpoint } from "./packed_checkpoint.ts";
import { type TensorToWrite, writeSafetensors } from "./safetensors_writer.ts";
import { toOwnLayout } from "./tensor_layout.ts";

/**
 * Writes `directory` beside its place and renames it when it is whole. Decoded weights are rounded to f16, and so are
 * tensors that weren't quantized.
 *
 * @throws {RangeError} when a weight lies beyond the range of f16
 * @throws {Error} when the directory exists, or another run writes it
 */
export async function writeHuggingFaceDirectory(
  checkpoint: PackedCheckpoint,
  directory: string,
  onProgress: (share: number, step: string) => void = () => {},
): Promise<void> {
  using _lock = await lockPath(directory);
  if (await pathExists(directory)) throw new Error(`${directory} exists, must not`);
  const beside = `${directory}.partial-${Deno.pid}`;
  await Deno.mkdir(beside, { recursive: true });
  unfinished.add(beside);
  try {
    for (const file of CARRIED_FILES) {
      const text = await checkpoint.readText(file);
      if (text === undefined) continue;
      await Deno.writeTextFile(join(beside, file), file === "config.json" ? declareF16(text) : text);
    }
    let done = 0;
    const decoded = Array.from(checkpoint.packed, ([name, { rows, channels }]) => ({
      name: `${name}.weight`,
      dtype: "F16" as const,
      shape: [rows, channels],
      async bytes() {
        onProgress(done++ / checkpoint.packed.size, name);
        return bytesOf(toF16(`${name}.weight`, await checkpoint.read(`${name}.weight`, [rows, channels])));
      },
    }));
    const carried = carriedTensors(checkpoint, checkpoint.packed).map((tensor) => asF16(decodeBlocks(tensor)));
    const tensors = toOwnLayout(checkpoint.config, [...carried, ...decoded]);
    await writeSafetensors(join(beside, "model.safetensors"), tensors, { format: "pt" });
    await Deno.rename(beside, directory);
  } catch (error) {
    await Deno.remove(beside, { recursive: true }).catch(() => {});
    throw error;
  } finally {
    unfinished.delete(beside);
  }
}

/** A carried weight tensor in f16, whatever it was: a directory has one dtype. What holds no weights stays as it is. */
function asF16(tensor: TensorToWrite): TensorToWrite {
  if (tensor.dtype === "F16" || !WEIGHT_DTYPES.includes(tensor.dtype)) return tensor;
  const bytes = async () => bytesOf(decodeHalves(tensor.name, await tensor.bytes(), tensor.dtype));
  return { ...tensor, dtype: "F16", bytes };
}

/** config.json with the dtype that the directory's weights now have. */
function declareF16(text: string): string {
  const config = JSON.parse(text) as Record<string, unknown>;
  delete config.torch_dtype;
  return JSON.stringify({ ...config, dtype: "float16" }, null, 2) + "\n";
}
