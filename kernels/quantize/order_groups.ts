// Launcher of the kernel that puts channels into the order of quantization, in groups or one by one.
import { GROUP_CHANNELS } from "../../quant/format.ts";
import type { BufferScope } from "../gpu/buffer_scope.ts";
import { type Dispatch, type Gpu, spreadWorkgroups } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

const THREADS = 64;

/** An f32 matrix x: [channels, lines] or, with channels in columns, [lines, channels]. */
export interface OrderedMatrix {
  readonly x: GPUBuffer;
  readonly lines: number;
  readonly channelsLie: "rows" | "columns";
  /** Channels that move together; 16 by default. */
  readonly width?: number;
}

/**
 * Dispatch that puts the groups of channels of a matrix into another order, in place.
 *
 * @param scope takes over what it needs
 * @param order [channels / width]: the group that comes to each position
 */
export async function orderGroups(
  gpu: Gpu,
  scope: BufferScope,
  order: Uint32Array,
  { x, lines, channelsLie, width = GROUP_CHANNELS }: OrderedMatrix,
): Promise<Dispatch> {
  const strides = channelsLie === "rows"
    ? { channel_stride: lines, line_stride: 1 }
    : { channel_stride: 1, line_stride: width * order.length };
  const words = cyclesOf(order);
  const cycles = await scope.upload("cycles", words);
  return await gpu.makeDispatch(joinShader(wgsl, "order_groups"), {
    constants: { width, lines, ...strides },
    buffers: { cycles: { buffer: cycles, size: words.byteLength }, x },
    workgroups: spreadWorkgroups(Math.ceil(width * lines / THREADS)),
  });
}

/** See order_groups.wgsl. */
function cyclesOf(order: Uint32Array): Uint32Array<ArrayBuffer> {
  const cycles: number[] = [];
  const seen = new Uint8Array(order.length);
  for (let start = 0; start < order.length; start++) {
    if (seen[start]) continue;
    cycles.push((start | 0x80000000) >>> 0);
    seen[start] = 1;
    for (let at = order[start]; at !== start; at = order[at]) {
      cycles.push(at);
      seen[at] = 1;
    }
  }
  return Uint32Array.from(cycles);
}
