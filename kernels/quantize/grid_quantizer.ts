// Launcher of error feedback to grids that are known beforehand: the baselines' (quant/baselines/). Its CPU reference is
// `quantizeWithFeedback` of quant/error_feedback.ts, as that of feedback_quantizer.ts up to rounding.
import type { Grid } from "../../quant/grid.ts";
import { type BufferScope, createBufferScope } from "../gpu/buffer_scope.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { submitAsMade } from "../gpu/run_ahead.ts";
import { joinShader } from "../gpu/shader.ts";
import { channelsOf, type DeviceFactor } from "./factorize.ts";
import { feedBack } from "./feedback_quantizer.ts";
import * as wgsl from "./wgsl.ts";

/** Rows of a workgroup of grid_block.wgsl. */
const WORKGROUP_ROWS = 32;

/** Codes of four bits in a word. */
const WORD_CODES = 8;

/**
 * Rounds a matrix to a grid with error feedback.
 *
 * @param transposed f32 [channels, rows]: the weights, or their target, in the order of quantization; used up
 * @param grid with codes of at most four bits
 * @returns codes [rows, channels]
 */
export async function quantizeToGrid(
  gpu: Gpu,
  transposed: GPUBuffer,
  grid: Grid,
  factor: DeviceFactor,
): Promise<Uint8Array<ArrayBuffer>> {
  const { rows, channels } = grid;
  using scope = createBufferScope(gpu);
  const order = channelsOf(factor);
  const buffers = {
    transposed,
    channel_groups: await scope.upload(
      "channel groups",
      order.map((channel) => grid.groupOf[channel] | (grid.maxCode[grid.groupOf[channel]] << 16)),
    ),
    grids: await uploadGrids(scope, grid),
    codes: await scope.storage("codes", 4 * rows * channels / WORD_CODES),
  };
  const shader = joinShader(wgsl, "grid_block");
  await submitAsMade(
    gpu,
    feedBack(gpu, scope, { rows, channels, transposed }, factor, (block) =>
      gpu.makeDispatch(shader, {
        constants: { rows, channels },
        buffers: { ...buffers, ...block },
        workgroups: [Math.ceil(rows / WORKGROUP_ROWS), 1, 1],
      })),
  );
  const words = new Uint32Array(await gpu.read(buffers.codes));
  const codes = new Uint8Array(rows * channels);
  for (let position = 0; position < channels; position++) {
    const first = Math.floor(position / WORD_CODES) * rows;
    const shift = 4 * (position % WORD_CODES);
    for (let row = 0; row < rows; row++) codes[row * channels + order[position]] = (words[first + row] >> shift) & 15;
  }
  return codes;
}

/** vec2<f32> [groups, rows]: lowest value and step. */
async function uploadGrids(scope: BufferScope, { rows, groups, lowest, step }: Grid): Promise<GPUBuffer> {
  const grids = new Float32Array(2 * rows * groups);
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      const at = 2 * (group * rows + row);
      grids[at] = lowest[row * groups + group];
      grids[at + 1] = step[row * groups + group];
    }
  }
  return await scope.upload("grids", grids);
}
