// Launcher of the kernel that measures read bandwidth.
import { type Dispatch, type Gpu, spreadWorkgroups } from "./gpu.ts";
import { joinShader } from "./shader.ts";
import * as wgsl from "./wgsl.ts";

const THREADS = 256;
/** Vectors of 16 bytes that a thread reads. */
const STRIPS = 8;

/** Dispatch that reads the first `sizeBytes` of a buffer once; `sink` is any other storage buffer. */
export async function readMemory(gpu: Gpu, source: GPUBuffer, sizeBytes: number, sink: GPUBuffer): Promise<Dispatch> {
  const vectors = Math.floor(sizeBytes / 16);
  return await gpu.makeDispatch(joinShader(wgsl, "read_memory"), {
    constants: { vectors, workgroup_size: THREADS },
    buffers: { source: { buffer: source, size: vectors * 16 }, sink },
    workgroups: spreadWorkgroups(Math.ceil(vectors / (THREADS * STRIPS))),
  });
}
