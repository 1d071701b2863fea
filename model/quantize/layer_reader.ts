// Reading the layers of a checkpoint in workers, so that a layer is read and decoded to f32 while the device works on
// the one before it.
import type { Checkpoint } from "../files/checkpoint.ts";
import type { Layer } from "../llama/llama.ts";
import { LINEAR_KINDS, type LinearKind, STAGES } from "../llama/layer.ts";
import type { LayerSource } from "./quantizing_device.ts";
import type { ReadTasks } from "./read_worker.ts";
import { release } from "../host/release.ts";
import { createWorkerPool } from "../host/worker_pool.ts";

const READ_WORKER = new URL("./read_worker.ts", import.meta.url);

/** Workers that read; more find no more memory bandwidth. */
const READERS = 4;

/**
 * Reads layers in order. Once all of a layer but its last stage is freed, the next one is read: memory holds no more than
 * a layer and a last stage. What isn't freed is freed when another layer is asked for.
 *
 * @param checkpoint a directory or file that each worker opens again
 */
export async function createLayerReader(checkpoint: Checkpoint): Promise<Required<LayerSource> & Disposable> {
  const { config, name } = checkpoint;
  const pool = createWorkerPool<ReadTasks>(READ_WORKER, Math.min(READERS, navigator.hardwareConcurrency));
  try {
    await pool.broadcast("openCheckpoint", name);
  } catch (error) {
    pool[Symbol.dispose]();
    throw error;
  }
  const read = async (layer: number): Promise<Layer> => {
    const [linears, [norms]] = await Promise.all([
      pool.map("readLinear", LINEAR_KINDS.map((kind) => ({ layer, kind }))),
      pool.map("readNorms", [layer]),
    ]);
    return {
      linears: Object.fromEntries(LINEAR_KINDS.map((kind, i) => [kind, linears[i]])) as Layer["linears"],
      ...norms,
    };
  };
  let ahead: { readonly index: number; readonly layer: Promise<Layer> } | undefined;
  let current: { readonly index: number; readonly layer: Layer } | undefined;
  return {
    config,
    async readLayer(index) {
      if (current) releaseWeights(current.layer);
      current = undefined;
      if (ahead && ahead.index !== index) await ahead.layer.then(releaseWeights, () => {});
      const layer = ahead?.index === index ? ahead.layer : read(index);
      ahead = undefined;
      current = { index, layer: await layer };
      return current.layer;
    },
    freeStage(stage) {
      if (!current) return;
      releaseWeights(current.layer, STAGES[stage].linears);
      const next = current.index + 1;
      if (stage !== STAGES.length - 2 || next === config.layers) return;
      ahead = { index: next, layer: read(next) };
      ahead.layer.catch(() => {}); // whoever asks for it gets the error
    },
    [Symbol.dispose]() {
      pool[Symbol.dispose]();
      if (current) releaseWeights(current.layer);
      ahead?.layer.then(releaseWeights, () => {});
    },
  };
}

function releaseWeights({ linears }: Layer, kinds: readonly LinearKind[] = LINEAR_KINDS): void {
  for (const kind of kinds) release(linears[kind].weights);
}
