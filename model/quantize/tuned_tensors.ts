// A quantized model as tuning takes it, and what tuning puts into its file.
import type { PackedShape } from "../../quant/packed_tensor.ts";
import { checkpointSource, type WeightSource } from "../engine/weight_source.ts";
import type { Checkpoint } from "../files/checkpoint.ts";
import { bytesOf } from "../files/numbers.ts";
import { planeToWrite } from "../files/packed_file.ts";
import type { TensorToWrite } from "../files/safetensors_writer.ts";
import type { TunedParameters } from "../tune/parameters.ts";
import type { StoredLayer } from "./quantizing_device.ts";

/**
 * The weights of a checkpoint with some matrices packed.
 *
 * @param readStored reads what is stored of a layer, one at a time
 */
export function quantizedSource(
  checkpoint: Checkpoint,
  readStored: (layer: number) => Promise<StoredLayer | undefined>,
): WeightSource {
  const source = checkpointSource(checkpoint);
  let last: { readonly layer: number; readonly stored: StoredLayer | undefined } | undefined;
  return {
    ...source,
    async linear(layer, kind) {
      if (last?.layer !== layer) last = { layer, stored: await readStored(layer) };
      const tensor = last.stored?.get(kind);
      return tensor?.kind === "twobit" ? { kind: "packed", tensor: tensor.tensor } : await source.linear(layer, kind);
    },
  };
}

/**
 * The tensors that tuning changed, by name, as they go into a file: second-order scales in f16 as ever, norms in f32
 * whatever they were in before, so that nothing of them is rounded.
 *
 * @param shapes of the packed tensors
 */
export function tunedTensors(
  { scales, norms }: TunedParameters,
  shapes: ReadonlyMap<string, PackedShape>,
): ReadonlyMap<string, TensorToWrite> {
  const planes = Array.from(scales, ([name, scale]) => planeToWrite(name, "tileScale", shapes.get(name)!, scale));
  const vectors = Array.from(norms, ([name, weights]): TensorToWrite => {
    return { name, dtype: "F32", shape: [weights.length], bytes: () => bytesOf(weights) };
  });
  return new Map([...planes, ...vectors].map((tensor) => [tensor.name, tensor]));
}
