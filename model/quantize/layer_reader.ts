// Reading the layers of a checkpoint in workers, so that a layer is read and decoded to f32 while the device works on
// the one before it.
import type { Checkpoint } from "../files/checkpoint.ts";
import type { Layer, Linear } from "../llama/llama.ts";
import { LINEAR_KINDS, type LinearKind, STAGES } from "../llama/layer.ts";
import type { LayerSource } from "./quantizing_device.ts";
import type { ReadTasks } from "./read_worker.ts";
import { release } from "../host/release.ts";
import { createWorkerPool } from "../host/worker_pool.ts";

const READ_WORKER = new URL("./read_worker.ts", import.meta.url);

/** Workers that read; more find no more memory bandwidth. */
const READERS = 4;

/** A layer that is being read: how many of its stages were asked for, and their matrices, in order. */
interface Reading {
  readonly index: number;
  stages: number;
  readonly linears: Promise<Linear[]>[];
}

/**
 * Reads layers in order. Where a stage is freed the same stage of the next layer is read in its place, and its last one with
 * the last but one, so that all of it is on its way when it is asked for: memory holds one layer and a last stage.
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
  let current: Layer["linears"] | undefined;
  let ahead: Reading | undefined;
  const begin = (index: number): Reading => ({ index, stages: 0, linears: [] });
  /** Asks for stages before `end`, where they aren't asked for. */
  const readTo = (reading: Reading, end: number) => {
    const kinds = STAGES.slice(reading.stages, end).flatMap(({ linears }) => linears);
    const read = pool.map("readLinear", kinds.map((kind) => ({ layer: reading.index, kind })));
    read.catch(() => {}); // whoever asks for it gets the error
    reading.linears.push(read);
    reading.stages = Math.max(reading.stages, end);
  };
  const free = (kinds: readonly LinearKind[]) => {
    if (current) { for (const kind of kinds) release(current[kind].weights); }
  };
  const freeReading = async (reading?: Reading) => {
    for (const read of reading?.linears ?? []) {
      for (const { weights } of await read.catch(() => [])) release(weights);
    }
  };
  return {
    config,
    async readLayer(index) {
      free(LINEAR_KINDS);
      current = undefined;
      const reading = ahead?.index === index ? ahead : begin(index);
      if (reading !== ahead) await freeReading(ahead);
      ahead = index + 1 < config.layers ? begin(index + 1) : undefined;
      readTo(reading, STAGES.length);
      const [norms] = await pool.map("readNorms", [index]);
      const linears = (await Promise.all(reading.linears)).flat();
      current = Object.fromEntries(LINEAR_KINDS.map((kind, i) => [kind, linears[i]])) as Layer["linears"];
      return { linears: current, ...norms };
    },
    freeStage(stage) {
      free(STAGES[stage].linears);
      if (ahead) readTo(ahead, stage < STAGES.length - 2 ? stage + 1 : STAGES.length);
    },
    [Symbol.dispose]() {
      pool[Symbol.dispose]();
      free(LINEAR_KINDS);
      freeReading(ahead);
    },
  };
}
