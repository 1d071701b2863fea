// Matrices of a stage as they were, on their way to the device: in f32, a part at a time while it works on other things.
import { createBufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import type { LinearKind } from "../llama/layer.ts";
import type { Layer } from "../llama/llama.ts";

/** Bytes written at a time: little enough that the device still has work when they are. */
const PART_BYTES = 4 * 2 ** 20;

interface Coming {
  readonly buffer: GPUBuffer;
  /** f32 [rows, channels], of the host. */
  readonly weights: Float32Array<ArrayBuffer>;
  /** Weights that are written. */
  written: number;
}

/** Matrices on their way; they are freed when others begin. */
export interface ComingWeights extends Disposable {
  /** Begins with matrices of a layer, in place of those before. */
  begin(linears: Layer["linears"], kinds: readonly LinearKind[]): Promise<void>;
  /** Writes a part of what is left. */
  writePart(): void;
  /** A matrix that has begun, once all of it is written: f32 [rows, channels]. */
  finish(kind: LinearKind): Promise<GPUBuffer | undefined>;
}

export function createComingWeights(gpu: Gpu): ComingWeights {
  const scope = createBufferScope(gpu);
  const coming = new Map<LinearKind, Coming>();
  const isLeft = ({ weights, written }: Coming) => written < weights.length;
  const write = (one: Coming) => {
    const part = one.weights.subarray(one.written, one.written + PART_BYTES / 4);
    gpu.write(one.buffer, part, 4 * one.written);
    one.written += part.length;
  };
  const free = () => {
    coming.clear();
    scope[Symbol.dispose]();
  };
  return {
    async begin(linears, kinds) {
      free();
      for (const kind of kinds) {
        const weights = linears[kind].weights as Float32Array<ArrayBuffer>;
        coming.set(kind, { buffer: await scope.storage(kind, weights.byteLength), weights, written: 0 });
      }
    },
    writePart() {
      const next = coming.values().find(isLeft);
      if (next) write(next);
    },
    async finish(kind) {
      const one = coming.get(kind);
      while (one && isLeft(one)) {
        await gpu.waitForWrites();
        write(one);
      }
      return one?.buffer;
    },
    [Symbol.dispose]: free,
  };
}
