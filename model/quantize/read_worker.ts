// A worker that reads a checkpoint's tensors.
import { type Checkpoint, type LayerNorms, readLinear, readNorms } from "../files/checkpoint.ts";
import { serveTasks } from "../host/worker_pool.ts";
import type { LinearKind } from "../llama/layer.ts";
import type { Linear } from "../llama/llama.ts";
import { openModel } from "../load.ts";

export interface ReadTasks {
  /** Opens the checkpoint that later tasks read. */
  openCheckpoint(name: string): Promise<void>;
  readLinear(task: { readonly layer: number; readonly kind: LinearKind }): Promise<Linear>;
  readNorms(layer: number): Promise<LayerNorms>;
}

let checkpoint: Checkpoint | undefined;

function opened(): Checkpoint {
  if (!checkpoint) throw new TypeError("worker has no checkpoint, must be told to open one first");
  return checkpoint;
}

const tasks: ReadTasks = {
  async openCheckpoint(name) {
    checkpoint = await openModel(name);
  },

  readLinear: ({ layer, kind }) => readLinear(opened(), layer, kind),

  readNorms: (layer) => readNorms(opened(), layer),
};

// Nobody else has what was read.
serveTasks(tasks, (name, result) => name === "readLinear" ? [(result as Linear).weights.buffer as ArrayBuffer] : []);
