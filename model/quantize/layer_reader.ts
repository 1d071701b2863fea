// Reading the layers of a checkpoint in workers, so that a layer is read and decoded to f32 while the device works on
// the one before it.
import type { Checkpoint } from "../files/checkpoint.ts";
import type { Layer } from "../llama/llama.ts";
import { LINEAR_KINDS } from "../llama/layer.ts";
import type { LayerSource } from "./quantizing_device.ts";
import type { ReadTasks } from "./read_worker.ts";
import { release } from "../host/release.ts";
import { createWorkerPool } from "../host/worker_pool.ts";

const READ_WORKER = new URL("./read_worker.ts", import.meta.url);

/** Workers that read; more find no more memory bandwidth. */
const READERS = 4;

/**
 * Reads layers in order; each that is asked for has the next one read. A layer's weights are there until another layer is
 * asked for, which frees them: two layers at most are in memory, one of them being read.
 *
 * @param checkpoint a directory or file that each worker opens again
 */
export async function createLayerReader(checkpoint: Checkpoint): Promise<LayerSource & Disposable> {
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
  let current: Layer | undefined;
  const releaseCurrent = () => {
    if (current) releaseWeights(current);
    current = undefined;
  };
  return {
    config,
    async readLayer(index) {
      releaseCurrent();
      if (ahead && ahead.index !== index) await ahead.layer.then(releaseWeights, () => {});
      const layer = ahead?.index === index ? ahead.layer : read(index);
      ahead = undefined;
      current = await layer;
      if (index + 1 < config.layers) {
        ahead = { index: index + 1, layer: read(index + 1) };
        ahead.layer.catch(() => {}); // whoever asks for it gets the error
      }
      return current;
    },
    [Symbol.dispose]() {
      pool[Symbol.dispose]();
      releaseCurrent();
      ahead?.layer.then(releaseWeights, () => {});
    },
  };
}

function releaseWeights({ linears }: Layer): void {
  for (const kind of LINEAR_KINDS) release(linears[kind].weights);
}
