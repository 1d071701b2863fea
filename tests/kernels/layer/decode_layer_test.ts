import type { LayerDispatches } from "../../../kernels/layer/decode_layer.ts";
import { attentionRowLanes } from "../../../kernels/attention/decode_attention.ts";
import type { DeviceProfile } from "../../../kernels/gpu/device_profile.ts";
import type { Gpu } from "../../../kernels/gpu/gpu.ts";
import { chooseTeam } from "../../../kernels/gpu/team.ts";
import { planShare } from "../../../kernels/layer/layer_plan.ts";
import type { KeyValues } from "../../../model/llama/attention.ts";
import { matmulPlain } from "../../model/llama/matmul_plain.ts";
import { REFINE_EVERY } from "../../../quant/format.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertEquals } from "../../assert.ts";
import { assertAsNear, jitter, roundInputs } from "../as_near.ts";
import { testGpu } from "../helpers.ts";
import {
  CAPACITY,
  createTestLayers,
  firstTokens,
  type LayersCase,
  layersOnCpu,
  randomPrefixes,
  type TestLayers,
} from "../layer_helpers.ts";

/** Around where sequences get more splits. */
const POSITIONS = [0, 1, 255, 256, 1023, 1024];

/** In some matrices none; in o so few that most layers have slots for all; elsewhere some rows have more than slots. */
const FEW_OUTLIERS = (layer: number, kind: string) => {
  if (kind === "o") return 0.0005;
  return kind === "qkv" || kind === "down" && layer % 2 === 1 ? 0.02 : 0;
};

/** Each density in each stage of some layer. */
const DENSITIES_BY_STAGE = (layer: number, kind: string) =>
  REFINE_EVERY[(layer + ["qkv", "o", "gateUp", "down"].indexOf(kind)) % REFINE_EVERY.length];

const CASES: Readonly<Record<string, LayersCase>> = {
  "one query, an even number of layers": {
    hidden: 64,
    intermediate: 96,
    heads: 2,
    keyValueHeads: 2,
    headSize: 32,
    runs: [4],
  },
  "four queries, outliers in some matrices and rows wider than a column, an odd number of layers in three runs": {
    hidden: 80,
    intermediate: 784,
    heads: 4,
    keyValueHeads: 1,
    headSize: 16,
    runs: [4, 4, 1],
    outlierShare: FEW_OUTLIERS,
  },
  "14 heads on 2, biases, two layers in runs of their own": {
    hidden: 64,
    intermediate: 80,
    heads: 14,
    keyValueHeads: 2,
    headSize: 16,
    runs: [1, 1],
    withBias: true,
    outlierShare: () => 0.01,
  },
  "norms of heads whose lanes are not a power of two, a run of two and of one": {
    hidden: 64,
    intermediate: 528,
    heads: 4,
    keyValueHeads: 2,
    headSize: 48,
    runs: [2, 1],
    withHeadNorm: true,
  },
  "rows that end in half a block, of one and of several columns": {
    hidden: 192,
    intermediate: 576,
    heads: 3,
    keyValueHeads: 3,
    headSize: 64,
    runs: [2],
    outlierShare: FEW_OUTLIERS,
  },
  "a sliding window, one query, wide heads": {
    hidden: 64,
    intermediate: 64,
    heads: 2,
    keyValueHeads: 2,
    headSize: 64,
    runs: [3],
    slidingWindow: 100,
    withBias: true,
  },
  "a sliding window, four queries": {
    hidden: 128,
    intermediate: 128,
    heads: 8,
    keyValueHeads: 2,
    headSize: 32,
    runs: [2, 2],
    slidingWindow: 300,
  },
  "densities by layer and stage, rows of one column and of several, outliers": {
    hidden: 144,
    intermediate: 784,
    heads: 4,
    keyValueHeads: 2,
    headSize: 32,
    runs: [4, 2],
    density: DENSITIES_BY_STAGE,
    outlierShare: FEW_OUTLIERS,
  },
  "one density other than the default": {
    hidden: 128,
    intermediate: 160,
    heads: 2,
    keyValueHeads: 2,
    headSize: 32,
    runs: [2],
    density: () => 4,
  },
  "activations of 8 bits, rows that end in half a block, of several columns, biases, outliers": {
    hidden: 192,
    intermediate: 576,
    heads: 3,
    keyValueHeads: 3,
    headSize: 64,
    runs: [2, 1],
    withBias: true,
    outlierShare: FEW_OUTLIERS,
    activationBits: 8,
  },
  "activations of 8 bits, densities by layer and stage, norms of heads": {
    hidden: 144,
    intermediate: 784,
    heads: 4,
    keyValueHeads: 2,
    headSize: 32,
    runs: [4, 2],
    density: DENSITIES_BY_STAGE,
    withHeadNorm: true,
    activationBits: 8,
  },
  "keys and values of 8 bits, grouped heads with norms": {
    hidden: 144,
    intermediate: 208,
    heads: 4,
    keyValueHeads: 2,
    headSize: 32,
    runs: [2, 1],
    withHeadNorm: true,
    cacheBits: 8,
  },
  "activations, keys and values of 8 bits, biases, a sliding window": {
    hidden: 64,
    intermediate: 80,
    heads: 2,
    keyValueHeads: 2,
    headSize: 64,
    runs: [2],
    withBias: true,
    slidingWindow: 40,
    activationBits: 8,
    cacheBits: 8,
  },
  "f16, rows of one column and of several that end in half a block, two runs": {
    hidden: 144,
    intermediate: 784,
    heads: 4,
    keyValueHeads: 2,
    headSize: 32,
    runs: [2, 1],
    format: "f16",
  },
  "f16, biases and norms of heads": {
    hidden: 64,
    intermediate: 80,
    heads: 2,
    keyValueHeads: 2,
    headSize: 48,
    runs: [2],
    format: "f16",
    withBias: true,
    withHeadNorm: true,
  },
};

function firstDifference(a: Float32Array, b: Float32Array): number {
  for (let i = 0; i < a.length; i++) if (!Object.is(a[i], b[i])) return i;
  return -1;
}

/** One token after `position` others: its output, what it leaves in the caches, and that the rest of them stays. */
async function checkToken(
  tested: TestLayers,
  made: LayerDispatches,
  prefixes: readonly KeyValues[],
  { cacheBits }: LayersCase,
) {
  const { shape: { hidden, attention: { keyValueHeads, headSize } } } = tested;
  const position = prefixes[0].length;
  const random = createRandom(position + 7);
  const input = Float32Array.from({ length: hidden }, () => random.normal());
  const { output, caches } = await tested.run(made, input, prefixes);
  const multiply = tested.shape.activationBits === 8 ? roundInputs(tested.host) : matmulPlain;
  const exact = layersOnCpu(tested, input, prefixes, multiply);
  const jitters = [1, 2].map((seed) => jitter(seed, multiply, cacheBits));
  const jittered = jitters.map((matmul) => layersOnCpu(tested, input, prefixes, matmul));
  assertAsNear(output, exact.output, jittered.map((other) => other.output), `output at position ${position}`);
  const width = keyValueHeads * headSize;
  for (const [layer, { before, after }] of caches.entries()) {
    for (const [part, name] of (["keys", "values"] as const).entries()) {
      const own = (entries: readonly KeyValues[]) => entries[layer][name].subarray(position * width);
      const taken = Float32Array.from({ length: width }, (_, i) => {
        const at = (Math.floor(i / headSize) * CAPACITY + position) * headSize + i % headSize;
        const value = after[part][at];
        after[part][at] = NaN; // as it was
        return value;
      });
      const what = `${name} of layer ${layer} at position ${position}`;
      assertAsNear(taken, own(exact.entries), jittered.map(({ entries }) => own(entries)), what);
      const changed = firstDifference(after[part], before[part]);
      assertEquals(changed, -1, `first element beside ${what} that was written`);
    }
  }
}

async function check(
  gpu: Gpu,
  testCase: LayersCase,
  decode: (tested: TestLayers) => Promise<LayerDispatches | string> = (tested) => tested.decode(),
) {
  const tested = await createTestLayers(gpu, testCase);
  const made = await decode(tested);
  assert(typeof made === "object", `the layers suit the kernel: ${made}`);
  assertEquals(made.dispatches.length, testCase.runs.length, "dispatches");
  const prefixes = randomPrefixes(tested.config, Math.max(...POSITIONS), 3, testCase.cacheBits);
  // Up and down again: what is handed over stays where it is from step to step.
  for (const position of [...POSITIONS, 5]) await checkToken(tested, made, firstTokens(prefixes, position), testCase);
  tested.destroy();
}

/**
 * Room for the partial results of so many splits behind all else that is handed over. A head that isn't split is shared
 * by as many workgroups as its groups of channels allow.
 */
function forceSplits(gpu: Gpu, splits: readonly [number, number], { heads, headSize }: LayersCase): () => void {
  const { createBuffer, createKernel } = gpu;
  const most = Math.max(...splits);
  const padded = (words: number) => Math.ceil(words / 128) * 128;
  let end = 0;
  gpu.createBuffer = (label, sizeBytes, usage) => {
    if (label !== "relay") return createBuffer.call(gpu, label, sizeBytes, usage);
    end = sizeBytes / 4;
    const more = most * padded(heads * headSize) + padded(2 * most * heads);
    return createBuffer.call(gpu, label, sizeBytes + 4 * more, usage);
  };
  gpu.createKernel = (shader, constants) =>
    createKernel.call(gpu, shader, {
      ...constants,
      sums_at: end,
      sums_stride: padded(heads * headSize),
      pairs_at: end + most * padded(heads * headSize),
      short_splits: splits[0],
      long_splits: splits[1],
      head_shares: [4, 2].find((shares) => headSize % (16 * shares) === 0) ?? 1,
    });
  return () => Object.assign(gpu, { createBuffer, createKernel });
}

for (const [i, [name, testCase]] of Object.entries(CASES).entries()) {
  Deno.test(`decode_layer equals the CPU reference: ${name}`, async () => await check(await testGpu(), testCase));

  Deno.test(`decode_layer in shares of heads and several splits equals the CPU reference: ${name}`, async () => {
    const gpu = await testGpu();
    const lift = forceSplits(gpu, i % 2 === 0 ? [1, 5] : [3, 16], testCase);
    try {
      await check(gpu, testCase);
    } finally {
      lift();
    }
  });
}

/** A device whose workgroup memory has room for down's rows in no fewer parts. */
function leaveRoom(gpu: Gpu, { shape, arenas }: TestLayers, parts: number): DeviceProfile {
  const { profile } = gpu;
  const team = chooseTeam(profile, attentionRowLanes(shape.attention));
  const workgroups = gpu.isSoftware ? 1 : profile.multiprocessors;
  const halfBlocks = Math.ceil(shape.intermediate / 64);
  for (let workgroupBytes = profile.workgroupBytes; workgroupBytes > 0; workgroupBytes -= 64) {
    const share = planShare({ ...profile, workgroupBytes }, shape, arenas, team, workgroups);
    if (!share?.partColumns) continue;
    const columns = Math.ceil(halfBlocks / share.lanes);
    if (Math.ceil(columns / share.partColumns) === parts) return { ...profile, workgroupBytes };
  }
  throw new Error(`no workgroup memory leads to ${parts} parts`);
}

for (const parts of [2, 3]) {
  Deno.test(`decode_layer equals the CPU reference where down is taken in ${parts} parts`, async () => {
    const gpu = await testGpu();
    const changed: { profile: DeviceProfile } = gpu;
    const { profile } = gpu;
    // Three columns of whole subgroups, or six.
    const intermediate = (parts === 2 ? 2 : 5) * 64 * chooseTeam(profile).lanes + 80;
    const outlierShare = () => parts === 2 ? 0.01 : 0;
    const sizes = { hidden: 64, intermediate, heads: 4, keyValueHeads: 4, headSize: 16, runs: [2, 1], outlierShare };
    try {
      await check(gpu, sizes, (tested) => {
        changed.profile = leaveRoom(gpu, tested, parts);
        return tested.decode();
      });
    } finally {
      changed.profile = profile;
    }
  });
}

Deno.test("decode_layer whose products take a single round equals the CPU reference: nobody waits until rows are handed over", async () => {
  const gpu = await testGpu();
  const { createKernel } = gpu;
  const held = new Set<unknown>();
  gpu.createKernel = (shader, constants) => {
    if (shader.label === "decode_layer") held.add(constants!.holds_back);
    return createKernel.call(gpu, shader, constants);
  };
  try {
    await check(gpu, { hidden: 32, intermediate: 32, heads: 2, keyValueHeads: 1, headSize: 16, runs: [2, 1] });
  } finally {
    Object.assign(gpu, { createKernel });
  }
  assertEquals([...held], [0]);
});

Deno.test("decode_layer where the last groups of gate and up are handed over unpacked equals the CPU reference", async () => {
  const gpu = await testGpu();
  const { createKernel } = gpu;
  gpu.createKernel = (shader, constants) =>
    createKernel.call(gpu, shader, { ...constants, inner_groups: constants!.inner_groups - 3 });
  try {
    await check(gpu, { ...CASES["rows that end in half a block, of one and of several columns"], runs: [2] });
  } finally {
    Object.assign(gpu, { createKernel });
  }
});
