// A matrix as it was, on its way to the device: in f32, a part at a time while the device works on what comes before it.
import { createBufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import type { LinearKind } from "../llama/layer.ts";
import type { Layer } from "../llama/llama.ts";

/** Bytes written at a time: little enough that the device still has work when they are. */
const PART_BYTES = 4 * 2 ** 20;

interface Coming {
  readonly kind: LinearKind;
  readonly buffer: GPUBuffer;
  /** f32 [rows, channels], of the host. */
  readonly weights: Float32Array<ArrayBuffer>;
  /** Weights that are written. */
  written: number;
}

/** The matrix on its way; it is freed when another begins. */
export interface ComingWeights extends Disposable {
  begin(linears: Layer["linears"], kind: LinearKind): Promise<void>;
  /** Writes a part of what is left. */
  writePart(): void;
  /** The matrix, f32 [rows, channels], once all of it is written; nothing where it isn't on its way. */
  finish(kind: LinearKind): Promise<GPUBuffer | undefined>;
}

export function createComingWeights(gpu: Gpu): ComingWeights {
  const scope = createBufferScope(gpu);
  let coming: Coming | undefined;
  const writePart = () => {
    if (!coming || coming.written === coming.weights.length) return;
    const part = coming.weights.subarray(coming.written, coming.written + PART_BYTES / 4);
    gpu.write(coming.buffer, part, 4 * coming.written);
    coming.written += part.length;
  };
  const free = () => {
    coming = undefined;
    scope[Symbol.dispose]();
  };
  return {
    async begin(linears, kind) {
      free();
      const weights = linears[kind].weights as Float32Array<ArrayBuffer>;
      coming = { kind, buffer: await scope.storage(kind, weights.byteLength), weights, written: 0 };
    },
    writePart,
    async finish(kind) {
      if (coming?.kind !== kind) return undefined;
      while (coming.written < coming.weights.length) {
        await gpu.waitForWrites();
        writePart();
      }
      return coming.buffer;
    },
    [Symbol.dispose]: free,
  };
}
