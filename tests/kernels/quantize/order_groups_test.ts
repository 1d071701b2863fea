import { createBufferScope } from "../../../kernels/gpu/buffer_scope.ts";
import { orderGroups } from "../../../kernels/quantize/order_groups.ts";
import { createRandom } from "../../../quant/random.ts";
import { assertEquals } from "../../assert.ts";
import { test } from "../../test.ts";
import { testGpu } from "../helpers.ts";

/** One group; a cycle through all; fixed groups, swaps and longer cycles. */
const ORDERS = [[0], [3, 4, 1, 2, 0], [0, 2, 1, 6, 4, 3, 5], shuffled(40)];

function shuffled(length: number): number[] {
  const random = createRandom(1);
  const order = Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i--) {
    const other = random.integer(i + 1);
    [order[i], order[other]] = [order[other], order[i]];
  }
  return order;
}

for (const channelsLie of ["rows", "columns"] as const) {
  for (const width of [16, 1]) {
    test(`orderGroups, channels in ${channelsLie}: moves groups of ${width} to their positions, in place`, async () => {
      const gpu = await testGpu();
      for (const order of ORDERS) {
        const channels = width * order.length;
        for (const lines of [1, 12, 100]) {
          using scope = createBufferScope(gpu);
          const at = (channel: number, line: number) =>
            channelsLie === "rows" ? channel * lines + line : line * channels + channel;
          const before = Float32Array.from({ length: channels * lines }, (_, i) => i);
          const wanted = before.slice();
          for (let channel = 0; channel < channels; channel++) {
            const source = width * order[Math.floor(channel / width)] + channel % width;
            for (let line = 0; line < lines; line++) wanted[at(channel, line)] = before[at(source, line)];
          }
          const x = await scope.upload("x", before);
          gpu.submit([await orderGroups(gpu, scope, Uint32Array.from(order), { x, lines, channelsLie, width })]);
          assertEquals(await gpu.readF32(x, wanted.length), wanted);
        }
      }
    });
  }
}
