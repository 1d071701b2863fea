import { attentionBackward } from "../../../kernels/backward/attention_backward.ts";
import { attentionBackwardOnCpu } from "./backward_reference.ts";
import type { AttentionShape } from "../../../kernels/attention/key_value_cache.ts";
import { createBufferScope } from "../../../kernels/gpu/buffer_scope.ts";
import { whole } from "../../../kernels/gpu/plane.ts";
import { createTokenRange } from "../../../kernels/tokens/token_range.ts";
import { createRandom } from "../../../quant/random.ts";
import { test } from "../../test.ts";
import { assertWithin, poisonedOutput, readOutput, testGpu } from "../helpers.ts";

interface Case extends AttentionShape {
  readonly tokens: number;
  readonly windows: number;
}

/** Ragged tiles, heads of a part of a run, of two runs and of two parts, windows of keys. */
const CASES: readonly Case[] = [
  { heads: 4, keyValueHeads: 2, headSize: 8, tokens: 40, windows: 2 },
  { heads: 3, keyValueHeads: 3, headSize: 48, tokens: 70, windows: 2, slidingWindow: 20 },
  { heads: 2, keyValueHeads: 1, headSize: 72, tokens: 64, windows: 1, slidingWindow: 33 },
];

for (const { tokens, windows, ...shape } of CASES) {
  const { heads, keyValueHeads, headSize, slidingWindow } = shape;
  const name =
    `${heads} / ${keyValueHeads} heads of ${headSize}, ${windows} x ${tokens} tokens, window ${slidingWindow}`;
  test(`attention_backward ${name}: gradients equal the CPU's`, async () => {
    const gpu = await testGpu();
    using scope = createBufferScope(gpu);
    const random = createRandom(tokens);
    const capacity = tokens + 5;
    const width = (heads + 2 * keyValueHeads) * headSize;
    const draw = (length: number) => Float32Array.from({ length }, () => random.normal());
    const [qkv, outGradient] = [draw(windows * tokens * width), draw(windows * tokens * heads * headSize)];
    const halves = () => Float16Array.from(draw(windows * keyValueHeads * capacity * headSize));
    const [keys, values] = [halves(), halves()];
    const wanted = Array.from({ length: windows }, (_, w) => {
      const rows = <T>(length: number, row: (token: number) => ArrayLike<T>) =>
        Array.from({ length }, (_, token) => Array.from(row(token))).flat();
      const cached = (plane: Float16Array) =>
        rows(tokens * keyValueHeads, (i) => {
          const [token, head] = [Math.floor(i / keyValueHeads), i % keyValueHeads];
          const first = ((w * keyValueHeads + head) * capacity + token) * headSize;
          return plane.subarray(first, first + headSize);
        });
      const q = rows(tokens, (token) => {
        const first = (w * tokens + token) * width;
        return qkv.subarray(first, first + heads * headSize);
      });
      const gradient = outGradient.subarray(w * tokens * heads * headSize, (w + 1) * tokens * heads * headSize);
      return attentionBackwardOnCpu(shape, { q, k: cached(keys), v: cached(values) }, gradient);
    });
    const range = await createTokenRange(gpu, tokens);
    scope.own(range.buffer);
    const qkvGradient = await poisonedOutput(gpu, windows * tokens * width);
    gpu.submit(
      await attentionBackward(gpu, shape, range, windows, {
        qkv: await scope.upload("qkv", qkv),
        cache: {
          capacity,
          keys: whole(await scope.upload("keys", keys)),
          values: whole(await scope.upload("values", values)),
        },
        out: await scope.upload("out", Float32Array.from(wanted.flatMap(({ out }) => [...out]))),
        outGradient: await scope.upload("out gradient", outGradient),
        statistics: await scope.storage("statistics", 8 * windows * heads * tokens),
        qkvGradient,
      }),
    );
    const actual = await readOutput(gpu, qkvGradient);
    for (const [w, { qGradient, kGradient, vGradient }] of wanted.entries()) {
      const part = (first: number, size: number) =>
        Array.from({ length: tokens }, (_, token) => {
          const at = (w * tokens + token) * width + first * headSize;
          return Array.from(actual.subarray(at, at + size * headSize));
        }).flat();
      assertWithin(part(0, heads), qGradient, `window ${w}, q`);
      assertWithin(part(heads, keyValueHeads), kGradient, `window ${w}, k`);
      assertWithin(part(heads + keyValueHeads, keyValueHeads), vGradient, `window ${w}, v`);
    }
  });
}
