import { chooseSplits, chooseWorkgroupSize } from "../../../kernels/attention/decode_attention.ts";
import { adapterName, isPlannedFor, isSoftwareAdapter } from "../../../kernels/gpu/adapter.ts";
import { type DeviceProfile, profileOf } from "../../../kernels/gpu/device_profile.ts";
import { chooseTeam } from "../../../kernels/gpu/team.ts";
import { planGemv } from "../../../kernels/product/fused_gemv.ts";
import type { ActivationBits } from "../../../kernels/product/pack_activations.ts";
import { headShares, longSplits, planShare } from "../../../kernels/layer/layer_plan.ts";
import { cutRuns, type DecodeLayer } from "../../../kernels/layer/layer_run.ts";
import type { LayerArena } from "../../../kernels/matrix/share_planes.ts";
import { assert, assertEquals } from "../../assert.ts";
import { H200, SOFTWARE } from "../helpers.ts";

function profileWith(info: Partial<GPUAdapterInfo>, features: readonly string[]) {
  const limits = { maxComputeWorkgroupStorageSize: 32768, maxComputeInvocationsPerWorkgroup: 1024 };
  const adapter = { info: info as GPUAdapterInfo };
  return profileOf(adapter, { limits: limits as GPUSupportedLimits }, new Set(features), { subgroupMatrices: [] });
}

Deno.test("profileOf knows software adapters and subgroups of one size", () => {
  const llvmpipe = { description: "llvmpipe (LLVM 15.0.6, 256 bits)", subgroupMinSize: 8, subgroupMaxSize: 8 };
  assertEquals(profileWith(llvmpipe, ["subgroups"]), SOFTWARE);
  assertEquals(profileWith(llvmpipe, []).subgroupSize, 0);
  const mixed = { description: "some GPU", subgroupMinSize: 8, subgroupMaxSize: 32 };
  assertEquals(profileWith(mixed, ["subgroups"]), { ...SOFTWARE, software: false, subgroupSize: 0 });
  // Reductions halve a subgroup, and take four lanes at least.
  const sizes = [2, 4, 6, 24, 32, 64].map((size) =>
    profileWith({ subgroupMinSize: size, subgroupMaxSize: size }, ["subgroups"]).subgroupSize
  );
  assertEquals(sizes, [0, 4, 0, 0, 32, 64]);
});

Deno.test("isPlannedFor knows the names of GPUs with 132 multiprocessors", () => {
  const known = ["NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA H100 NVL"];
  assertEquals(known.map(isPlannedFor), [true, true, true]);
  // 114, 108 and 128.
  const others = ["NVIDIA H100 PCIe", "NVIDIA A100-SXM4-80GB", "NVIDIA GeForce RTX 4090", "AMD Radeon RX 7900 XTX"];
  assertEquals(others.map(isPlannedFor), [false, false, false, false]);
});

Deno.test("isSoftwareAdapter goes by the driver's name, by what a browser says, and by the fallback flag", () => {
  const info = (known: Partial<GPUAdapterInfo>) =>
    ({
      description: "",
      device: "",
      vendor: "",
      architecture: "",
      isFallbackAdapter: false,
      ...known,
    }) as GPUAdapterInfo;
  const names = [
    { description: "a", device: "b" },
    { device: "b", vendor: "c" },
    { vendor: "c", architecture: "d" },
    {},
  ];
  assertEquals(names.map((known) => adapterName(info(known))), ["a", "b", "c d", "unnamed adapter"]);
  assertEquals(adapterName(info({ vendor: "nvidia" })), "nvidia");
  const software = [
    { description: "llvmpipe (LLVM 15.0.6, 256 bits)" },
    { device: "SwiftShader Device (Subzero)" },
    { vendor: "google", architecture: "swiftshader" },
    { description: "Microsoft Basic Render Driver" },
    { description: "Apple Software Renderer" },
    { description: "NVIDIA H200", isFallbackAdapter: true },
  ];
  for (const known of software) assert(isSoftwareAdapter(info(known)), JSON.stringify(known));
  for (const description of ["NVIDIA H200", "AMD Radeon RX 7900 XTX (RADV NAVI31)", "Apple M3", ""]) {
    assert(!isSoftwareAdapter(info({ description })), description);
  }
});

Deno.test("cutRuns: a run is of one arena and of layers whose caches share a buffer", () => {
  const layer = (buffer: string) => ({ cache: { keys: { buffer } } }) as unknown as DecodeLayer;
  const arena = (...names: string[]) => ({ layers: names }) as unknown as LayerArena;
  const layers = ["a", "a", "a", "b", "b", "b"].map(layer);
  const cut = (...arenas: LayerArena[]) =>
    cutRuns(arenas, layers).map(({ first, matrices, layers: own }) => {
      assertEquals(own, layers.slice(first, first + own.length));
      return [first, ...matrices.map(String)];
    });
  assertEquals(cut(arena("0", "1", "2", "3", "4", "5")), [[0, "0", "1", "2"], [3, "3", "4", "5"]]);
  assertEquals(cut(arena("0", "1"), arena("2", "3", "4", "5")), [[0, "0", "1"], [2, "2"], [3, "3", "4", "5"]]);
});

const SEVEN_B = { heads: 32, keyValueHeads: 32, headSize: 128 };
const GROUPED = { heads: 32, keyValueHeads: 8, headSize: 128 };

Deno.test("plans of an H200 and of a software adapter are those that were measured", () => {
  // 32 workgroups a split, or 8: 128 workgroups up to 1024 tokens and 256 beyond, 16 splits at most.
  const splits = [256, 257, 1024, 1025].flatMap((tokens) =>
    [SEVEN_B, GROUPED].map((shape) => chooseSplits(H200, shape, tokens))
  );
  assertEquals(splits, [1, 1, 4, 16, 4, 16, 8, 16]);
  assertEquals([5, 16].map((sequences) => chooseSplits(H200, GROUPED, 4096, sequences)), [6, 2]);
  assertEquals(chooseSplits(SOFTWARE, GROUPED, 4096), 1);
  // 128 workgroups, each of one head, and of a small model 63 of 96; a short sequence's 128 have a quarter of a head each.
  assertEquals([SEVEN_B, GROUPED].map((attention) => longSplits(H200, { ...LAYER, attention })), [4, 4]);
  const small = { ...LAYER, intermediate: 1536, attention: { heads: 9, keyValueHeads: 3, headSize: 64 } };
  assertEquals([H200, SOFTWARE].map((profile) => longSplits(profile, small)), [7, 1]);
  // 64 heads have room for two each, 80 channels are five groups.
  const shared = [SEVEN_B, { ...GROUPED, heads: 64 }, { heads: 32, keyValueHeads: 32, headSize: 80 }];
  assertEquals(shared.map((attention) => headShares(H200, { ...LAYER, attention })), [4, 2, 1]);
  assertEquals(headShares(SOFTWARE, { ...LAYER, attention: SEVEN_B }), 1);
  // A thread takes (4 * 4 * 130) / 32 = 65 bytes, so there is room for all 256.
  const team = chooseTeam(H200);
  assertEquals(team, { lanes: 32, exchange: "exchange_subgroup", exchangeBytes: 0 });
  const sizes = [[H200, 264], [H200, 265], [SOFTWARE, 1]] as const;
  assertEquals(sizes.map(([profile, workgroups]) => chooseWorkgroupSize(profile, team, 4, 16, workgroups)), [
    256,
    128,
    64,
  ]);
  // 5504 steps of 4 rows over 132 workgroups: 42 each, walked by 10 rows of two teams in order, by 6 a step ahead.
  assertEquals([true, false].map((synchronous) => planGemv(H200, team, 22016, 64, { synchronous })), [
    { columns: [2], rowTeams: 9, workgroupSteps: 42, workgroups: 132 },
    { columns: [2], rowTeams: 6, workgroupSteps: 42, workgroups: 132 },
  ]);
});

const LAYER = { hidden: 4096, intermediate: 11008, normEpsilon: 1e-5 };

Deno.test("a device with fewer multiprocessors gets fewer workgroups and splits", () => {
  const small = { ...H200, multiprocessors: 40 };
  assertEquals(planGemv(small, chooseTeam(small), 22016, 64).workgroups, 40);
  assertEquals([SEVEN_B, GROUPED].map((shape) => chooseSplits(small, shape, 4096)), [2, 8]);
});

Deno.test("planShare takes half subgroups where columns are uneven, and rows in parts where that is faster or they are too long", () => {
  const plan = (
    [hidden, intermediate, heads, keyValueHeads, headSize]: readonly number[],
    device: DeviceProfile = H200,
    workgroups = 132,
    activationBits: ActivationBits = 16,
  ) => {
    const matrix = (rows: number, channels: number) => ({ rows, halfBlocks: channels / 64, slabs: [{ slotStart: 1 }] });
    const layer = [
      matrix((heads + 2 * keyValueHeads) * headSize, hidden),
      matrix(hidden, heads * headSize),
      matrix(2 * intermediate, hidden),
      matrix(hidden, intermediate),
    ];
    const shape = { ...LAYER, hidden, intermediate, attention: { heads, keyValueHeads, headSize }, activationBits };
    const arena = { layers: [layer] } as unknown as LayerArena;
    const { lanes, threads, partColumns } = planShare(
      { ...device, workgroupBytes: 49152 },
      shape,
      [arena],
      chooseTeam(device),
      workgroups,
    )!;
    return [lanes, threads, partColumns];
  };
  assertEquals(plan([4096, 11008, 32, 32, 128]), [32, 384, 0], "7B");
  assertEquals(plan([4096, 14336, 32, 8, 128]), [32, 512, 0], "8B");
  // 80 half blocks are five times 16 lanes.
  assertEquals(plan([5120, 13824, 40, 40, 128]), [16, 480, 0], "13B");
  // 14 columns in parts of 6, 6 and 2, which 12 teams take two rows, two rows and six rows at a time.
  assertEquals(plan([8192, 28672, 64, 8, 128]), [32, 384, 6], "70B");
  // With activations of 8 bits more subgroups cost less: 53 turns of 16 instead of 69 of 12.
  const inBytes = (sizes: readonly number[]) => plan(sizes, H200, 132, 8).slice(0, 2);
  assertEquals(inBytes([8192, 28672, 64, 8, 128]), [32, 512], "70B, 8 bits");
  assertEquals(inBytes([4096, 11008, 32, 32, 128]), [32, 384], "7B, 8 bits");
  // Five half blocks: halves of a subgroup of 8 have the 4 lanes that a step's sums need, those of 4 would not.
  const five = [64, 320, 2, 2, 32];
  assertEquals([8, 4].map((subgroupSize) => plan(five, { ...H200, subgroupSize }, 1)[0]), [4, 4]);
});

/** Hidden, intermediate, heads, key and value heads, head size. */
const SHARED = [
  [64, 80, 14, 2, 16],
  [80, 784, 4, 1, 16],
  [576, 1536, 9, 3, 64],
  [896, 4864, 14, 2, 64],
  [1040, 2736, 5, 5, 208],
  [4096, 14336, 32, 8, 128],
  [5120, 13824, 40, 40, 128],
  [8192, 28672, 64, 8, 128],
];

Deno.test("planShare: workgroups take every row once, each what it has room for", () => {
  let shared = 0;
  for (const subgroupSize of [8, 16, 32, 64]) {
    for (const most of [1, 7, 60, 132]) {
      for (const [hidden, intermediate, heads, keyValueHeads, headSize] of SHARED) {
        const workgroups = Math.min(most, intermediate / 16);
        const sizes = [[(heads + 2 * keyValueHeads) * headSize, hidden], [hidden, heads * headSize]];
        const matrices = [...sizes, [2 * intermediate, hidden], [hidden, intermediate]].map(([rows, channels]) => ({
          rows,
          halfBlocks: Math.ceil(channels / 64),
          slabs: [{ slotStart: 4 }],
        }));
        const shape = { ...LAYER, hidden, intermediate, attention: { heads, keyValueHeads, headSize } };
        const profile = { ...H200, subgroupSize };
        const team = { lanes: subgroupSize, exchange: "exchange_subgroup", exchangeBytes: 0 } as const;
        const arena = { layers: [matrices] } as unknown as LayerArena;
        const share = planShare(profile, shape, [arena], team, workgroups);
        if (!share) continue;
        shared++;
        const what = JSON.stringify({ subgroupSize, workgroups, hidden, share });
        const packed = [0, hidden, 16 * share.innerGroups, hidden];
        for (const [stage, { rows, halfBlocks }] of matrices.entries()) {
          const outputs = rows / (stage === 2 ? 2 : 1);
          const taken = sharesOf(outputs, packed[stage], workgroups);
          assertEquals(new Set(taken.flat()).size, outputs, `rows of stage ${stage}: ${what}`);
          assertEquals(taken.flat().length, outputs, `rows taken twice in stage ${stage}: ${what}`);
          const steps = Math.max(...taken.map(({ length }) => Math.ceil(length / 4))) * (rows / outputs);
          const columns = stage === 3 && share.partColumns || Math.ceil(halfBlocks / share.lanes);
          assert(4 * steps * (columns + 1) <= share.partials, `sums of stage ${stage}: ${what}`);
          assert(columns * share.lanes <= Math.min(share.threads, share.cells / 4), `columns of ${stage}: ${what}`);
        }
        assert(share.threads % subgroupSize === 0, what);
      }
    }
  }
  assert(shared > 64, `${shared} plans fit workgroup memory`);
});

/** Rows that each workgroup takes, as decode_layer.wgsl has them: first whole groups of those packed, then steps. */
function sharesOf(outputs: number, packed: number, workgroups: number): number[][] {
  const packedShare = 16 * Math.ceil(packed / 16 / workgroups);
  const restShare = 4 * Math.ceil(Math.ceil((outputs - packed) / 4) / workgroups);
  const range = (first: number, count: number, end: number) =>
    Array.from({ length: Math.max(0, Math.min(count, end - first)) }, (_, i) => first + i);
  return Array.from({ length: workgroups }, (_, i) => [
    ...range(i * packedShare, packedShare, packed),
    ...range(packed + i * restShare, restShare, outputs),
  ]);
}
