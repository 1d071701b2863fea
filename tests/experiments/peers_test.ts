import { type LlamaCppPlan, measureLlamaCpp, packSource, parseLlamaBench } from "../../experiments/peers/llama_cpp.ts";
import { type PeerRun, peersResult } from "../../experiments/peers/peer_run.ts";
import { measurePytorch, parseTorch } from "../../experiments/peers/pytorch.ts";
import { runProgram } from "../../experiments/peers/run_program.ts";
import { GGUF_FORMATS, writeRandomGguf } from "../../experiments/peers/random_gguf.ts";
import { plotOf } from "../../experiments/plots/plots.ts";
import { renderDirectory, renderResult } from "../../experiments/render.ts";
import { renderReport } from "../../experiments/report/report_page.ts";
import { compareResults, incomparable } from "../../experiments/results/compare_results.ts";
import { peersBeside } from "../../experiments/results/peers.ts";
import { parseResult, type Result, writeResult } from "../../experiments/results/result.ts";
import { openGgufFile } from "../../model/files/gguf_file.ts";
import { readGgufTensor } from "../../model/files/gguf_tensor.ts";
import { describeConfig } from "../../model/files/gguf_config.ts";
import type { ModelShape } from "../../model/llama/shapes.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "../assert.ts";
import { filesIn, inDirectory } from "../temporary.ts";
import { makeResult } from "./make_result.ts";

const { device, environment } = makeResult({
  device: { name: "nvidia-h200", adapter: "NVIDIA H200", software: false },
});

const LLAMA: PeerRun = {
  program: "llama.cpp CUDA",
  version: "1.0",
  gpu: "NVIDIA H200",
  built: "CMake",
  command: "llama-bench -p 512",
  measurements: [
    { key: "prefill_tokens_per_s", model: "7b", format: "Q2_K", context: 0, prompt: 512, samples: [6000, 6100, 6200] },
    { key: "decode_tokens_per_s", model: "7b", format: "Q2_K", context: 128, prompt: null, samples: [303, 301, 305] },
  ],
};
const TORCH: PeerRun = {
  program: "PyTorch",
  version: "2.9",
  gpu: "NVIDIA H200",
  built: "as installed",
  command: "torch.mv",
  measurements: [{ key: "time_us", shape: "64x128", format: "F16", samples: [25, 26, 27] }],
};
const PEERS = peersResult([LLAMA, TORCH], { device, environment });

const SPEEDS = makeResult({
  id: "end_to_end",
  device,
  columns: ["model", "format", "context", "decode_tokens_per_s"].map((key) => ({ key, label: key, unit: "" })),
  rows: [128, 1024].flatMap((context) => [
    { model: "7b", format: "f16", context, decode_tokens_per_s: 230 },
    { model: "7b", format: "twobit", context, decode_tokens_per_s: 600 },
  ]),
});

Deno.test("peers: rows beside the tables they belong to, with medians and errors", () => {
  const beside = peersBeside(PEERS, "end_to_end")!;
  assertEquals(beside.rows.map((row) => [row.decode_tokens_per_s ?? null, row.prefill_tokens_per_s ?? null]), [
    [null, 6100],
    [303, null],
  ]);
  assertEquals(beside.rows[1].decode_tokens_per_s_error, 2);
  assert(beside.columns.every(({ key }) => key !== "shape" && key !== "time_us"));
  assertEquals(peersBeside(PEERS, "async")!.rows.length, 1);
  assertEquals(peersBeside(PEERS, "cost"), undefined);
  assertEquals(peersBeside(undefined, "async"), undefined);
});

Deno.test("peers: a page says that they are other programs in another run, and its verdict stays", () => {
  const alone = renderResult(SPEEDS);
  const page = renderResult(SPEEDS, peersBeside(PEERS, "end_to_end"));
  assertStringIncludes(
    page,
    "Other programs, measured on nvidia-h200 (NVIDIA H200) in runs of their own; no part of the verdict:",
  );
  assertStringIncludes(page, "| llama.cpp CUDA | 1.0 ");
  const verdictOf = (text: string) => /\*\*Verdict.*/.exec(text)![0];
  assertEquals(verdictOf(page), verdictOf(alone));
});

Deno.test("peers: pages, plots and report with and without the file", () =>
  inDirectory(async (directory) => {
    await writeResult(directory, SPEEDS);
    const without = await renderDirectory(directory);
    assert(!without.get(`${directory}/end_to_end.md`)!.includes("Other programs"));
    await writeResult(directory, PEERS);
    const pages = await renderDirectory(directory);
    assertStringIncludes(pages.get(`${directory}/end_to_end.md`)!, "llama.cpp CUDA");
    assertStringIncludes(pages.get(`${directory}/end_to_end.svg`)!, "llama.cpp CUDA Q2_K, another run");
    assertStringIncludes(pages.get(`${directory}/peers.md`)!, "llama-bench -p 512");
    const report = await renderReport(new Map([["h200", new Map([["end_to_end", SPEEDS], ["peers", PEERS]])]]));
    assertStringIncludes(report, "303 301 305");
  }));

Deno.test("peers: async's plot has PyTorch by our two_pass's time", async () => {
  const row = {
    model: "7b",
    layer: "o",
    shape: "64x128",
    speedup_vs_two_pass: 1,
    bandwidth_fraction: 0.5,
    time_us: 52,
  };
  const variants = ["two_pass", "fused_async"].map((variant) => ({ ...row, variant }));
  const result = makeResult({ id: "async", device, rows: variants });
  assertStringIncludes(await plotOf(result, peersBeside(PEERS, "async")), "PyTorch F16, another run");
});

Deno.test("peers: a program measured again replaces its own rows and keeps the other's, with samples and settings", () => {
  const later = { device, environment: { ...environment, startedAt: "2026-02-03T00:00:00Z" } };
  const faster = { ...TORCH, version: "3.0" };
  const merged = peersResult([faster], later, PEERS);
  assertEquals(merged.rows.map(({ program, version, date }) => [program, version, date]), [
    ["llama.cpp CUDA", "1.0", "2026-01-01"],
    ["llama.cpp CUDA", "1.0", "2026-01-01"],
    ["PyTorch", "3.0", "2026-02-03"],
  ]);
  assertEquals(merged.settings["llama.cpp CUDA: command"], "llama-bench -p 512");
  assertEquals(Object.keys(merged.samples!).length, 3);
  // Another GPU's rows are no rows of this one.
  const other = { ...later, device: { ...device, adapter: "NVIDIA H100" } };
  assertEquals(peersResult([{ ...faster, gpu: "NVIDIA H100" }], other, PEERS).rows.length, 1);
});

Deno.test("peers: programs that ran on the GPU of our own tables, or none of their numbers", () => {
  const on = (gpu: string) => () => peersResult([{ ...TORCH, gpu }], { device, environment });
  assertEquals(on("NVIDIA H200, NVIDIA H200")().rows.length, 1);
  assertThrows(on("NVIDIA H100"), Error, "PyTorch ran on NVIDIA H100, must run on NVIDIA H200");
  assertThrows(on(""), Error, "ran on no GPU");
});

Deno.test("peers: files of two GPUs can be compared", () => {
  const other = { device: { ...device, name: "nvidia-h100", adapter: "NVIDIA H100" }, environment };
  const there = peersResult([LLAMA, TORCH].map((run) => ({ ...run, gpu: "NVIDIA H100" })), other);
  assertEquals(incomparable(PEERS, there), undefined);
});

Deno.test("peers: compare takes differences of speed for noise or change, never for a failure", () => {
  const faster = peersResult([{
    ...LLAMA,
    measurements: LLAMA.measurements.map((each) => ({ ...each, samples: each.samples.map((s) => 2 * s) })),
  }, TORCH], { device, environment });
  const kinds = compareResults(new Map([["peers", PEERS]]), new Map([["peers", faster]]), 0).map(({ kind }) => kind);
  assertEquals(new Set(kinds), new Set(["change"]));
});

const FAULTS: readonly (readonly [change: Partial<Result>, message: string])[] = [
  [{ settings: {} }, 'settings lack "llama.cpp CUDA: built"'],
  [{ samples: {} }, "samples of llama.cpp CUDA 7b Q2_K 0 512: tokens/s are undefined"],
  [{ rows: [{ ...PEERS.rows[0], date: null }] }, "row 0 has date null, must be a text"],
  [{ rows: [{ ...PEERS.rows[0], version: null }] }, "row 0 has version null, must be a text"],
  [
    { rows: [{ ...PEERS.rows[0], prefill_tokens_per_s: null }] },
    "row 0 has no value, must have one of decode_tokens_per_s",
  ],
  [{ device: { name: "x", adapter: "", software: false } }, "device.adapter or environment.startedAt is missing"],
];

for (const [change, message] of FAULTS) {
  Deno.test(`peers: a file is refused: ${message}`, () => {
    assertThrows(() => parseResult("peers.json", JSON.stringify({ ...PEERS, ...change })), SyntaxError, message);
  });
}

Deno.test("parseLlamaBench: prompts and generation; what isn't that is refused", () => {
  // As llama-bench -o json prints it, shortened.
  const where = { backends: "CUDA", gpu_info: "NVIDIA H200", n_gpu_layers: 99 };
  const test = { ...where, n_prompt: 512, n_gen: 0, n_depth: 0, avg_ts: 6100.5, samples_ts: [6100, 6101] };
  const generation = { ...test, n_prompt: 0, n_gen: 64, n_depth: 128, samples_ts: [300, 301] };
  assertEquals(parseLlamaBench(JSON.stringify([test, generation])), {
    gpu: "NVIDIA H200",
    measurements: [
      { key: "prefill_tokens_per_s", context: 0, prompt: 512, samples: [6100, 6101] },
      { key: "decode_tokens_per_s", context: 128, prompt: null, samples: [300, 301] },
    ],
  });
  for (const change of [{ backends: "CPU" }, { backends: "Vulkan" }, { gpu_info: "" }, { n_gpu_layers: 0 }]) {
    const printed = JSON.stringify([test, { ...generation, ...change }]);
    assertThrows(() => parseLlamaBench(printed), Error, "must run with CUDA, a GPU and layers on it");
  }
  const refuse = (value: unknown, message: string) =>
    assertThrows(() => parseLlamaBench(JSON.stringify(value)), SyntaxError, message);
  refuse([], "must be an array of tests");
  refuse([{ ...test, n_depth: undefined }], "test 0 has n_depth undefined, must be a count");
  refuse([{ ...test, samples_ts: [0] }], "test 0 has samples_ts 0, must be numbers above 0");
  refuse([{ ...test, n_gen: 64 }], "one must be 0");
  assertThrows(() => parseLlamaBench("no"), SyntaxError, "not valid JSON");
});

Deno.test("parseTorch: times by shape; a missing shape is named", () => {
  const printed = { version: "2.9", cuda: "13.0", device: "H200", samples_us: { "64x128": [25, 26] } };
  const { measurements, gpu } = parseTorch(JSON.stringify(printed), ["64x128"]);
  assertEquals(gpu, "H200");
  assertThrows(() => parseTorch(JSON.stringify({ ...printed, device: null }), []), SyntaxError, "lacks device");
  assertEquals(measurements, [{ key: "time_us", shape: "64x128", format: "F16", samples: [25, 26] }]);
  assertThrows(() => parseTorch(JSON.stringify(printed), ["1x1"]), SyntaxError, "lacks 1x1");
});

const SHAPE: ModelShape = {
  ...{ name: "small", source: "made up", hidden: 256, intermediate: 512, layers: 2, heads: 4, keyValueHeads: 2 },
  ...{ headSize: 64, vocabulary: 100, tiedHead: false },
};

for (const format of GGUF_FORMATS) {
  // The Python package gguf 0.19 reads the same names, shapes and types out of these files.
  Deno.test(`writeRandomGguf ${format}: a file that opens, of finite weights as large as a model's`, () =>
    inDirectory(async (directory) => {
      const path = `${directory}/random.gguf`;
      await writeRandomGguf(path, SHAPE, format, 512, 1);
      using file = await openGgufFile(path);
      const config = JSON.parse(await describeConfig(file));
      assertEquals([config.hidden_size, config.num_key_value_heads, config.max_position_embeddings], [256, 2, 512]);
      assertEquals(file.tensors.size, 2 * 9 + 3);
      assertEquals(file.tensors.get("blk.1.ffn_down.weight")!.shape, [256, 512]);
      assertEquals(file.tensors.get("blk.1.ffn_down.weight")!.type.name, format);
      assertEquals(file.tensors.get("output.weight")!.type.name, "F16");
      assertEquals(await readGgufTensor(file.tensors.get("output_norm.weight")!), new Float32Array(256).fill(1));
      const weights = await readGgufTensor(file.tensors.get("blk.1.attn_q.weight")!);
      const square = weights.reduce((sum, weight) => sum + weight ** 2, 0) / weights.length;
      assert(square > 0.2 / 256 && square < 5 / 256, `${square}`);
    }));
}

Deno.test("writeRandomGguf: rows that aren't whole super-blocks are refused in Q2_K", () =>
  inDirectory(async (directory) => {
    await assertRejects(
      () => writeRandomGguf(`${directory}/random.gguf`, { ...SHAPE, hidden: 192 }, "Q2_K", 512, 1),
      RangeError,
      "blk.0.attn_q.weight has 192 channels, must be a multiple of 256",
    );
  }));

Deno.test("packSource: nothing stays beside the archive where it fails", () =>
  inDirectory(async (directory) => {
    await Deno.writeTextFile(`${directory}/source.tar.gz`, "no archive");
    await assertRejects(
      () => packSource(`${directory}/source.tar.gz`, directory, `${directory}/out.tar.gz`),
      Error,
      "tar",
    );
    assertEquals(filesIn(directory), ["source.tar.gz"]);
  }));

/** Programs that stand for cmake, llama-bench and a Python with PyTorch: they print what those print. */
const FAKES = {
  // Builds what bench.sh is, counts its calls, and is killed in the first build.
  "cmake": `#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/calls"
[ "$1" = --build ] || exit 0
[ -e "$here/killed" ] || { touch "$here/killed"; exit 137; }
mkdir -p "$2/bin"
cp "$here/bench.sh" "$2/bin/llama-bench"
`,
  "bench.sh": `#!/bin/sh
where='"backends":"CUDA","gpu_info":"NVIDIA H200","n_gpu_layers":99'
case "$*" in
  *"-p 512"*) echo "[{$where,\\"n_prompt\\":512,\\"n_gen\\":0,\\"n_depth\\":0,\\"samples_ts\\":[6000,6001]}]" ;;
  *) echo "[{$where,\\"n_prompt\\":0,\\"n_gen\\":64,\\"n_depth\\":128,\\"samples_ts\\":[300,301]}]" ;;
esac
`,
  "python": `#!/bin/sh
shift
for shape; do samples="$samples\${samples:+,}\\"$shape\\":[20.5,21]"; done
echo "{\\"version\\":\\"2.11\\",\\"cuda\\":\\"13.0\\",\\"device\\":\\"NVIDIA H200\\",\\"samples_us\\":{$samples}}"
`,
};

Deno.test("measureLlamaCpp, measurePytorch: a simulated run; an interrupted build goes on, a finished one stays", () =>
  inDirectory(async (directory) => {
    for (const [name, text] of Object.entries(FAKES)) {
      await Deno.writeTextFile(`${directory}/${name}`, text, { mode: 0o755 });
    }
    // What the source's archive holds, and its name.
    await Deno.mkdir(`${directory}/llama_cpp_python-0.3.36/vendor/llama.cpp`, { recursive: true });
    const source = `${directory}/source.tar.gz`;
    await runProgram("tar", ["-C", directory, "-czf", source, "llama_cpp_python-0.3.36"]);
    const steps: string[] = [];
    const plan: LlamaCppPlan = {
      ...{ source, work: `${directory}/work`, architecture: "90", shape: SHAPE, seed: 1 },
      cmake: `${directory}/cmake`,
      onProgress: (step) => void steps.push(step),
    };
    const calls = async () => (await Deno.readTextFile(`${directory}/calls`)).trim().split("\n").length;
    await assertRejects(() => measureLlamaCpp(plan), Error, "ended with 137");
    const run = await measureLlamaCpp(plan);
    assertEquals(await calls(), 4);
    assertEquals(run.gpu, "NVIDIA H200");
    assertEquals(run.measurements.map(({ key, format }) => [key, format]), [
      ["prefill_tokens_per_s", "Q2_K"],
      ["decode_tokens_per_s", "Q2_K"],
      ["prefill_tokens_per_s", "F16"],
      ["decode_tokens_per_s", "F16"],
    ]);
    const written = await Deno.stat(`${plan.work}/small-F16.gguf`);
    await measureLlamaCpp(plan);
    assertEquals(await calls(), 4);
    assertEquals((await Deno.stat(`${plan.work}/small-F16.gguf`)).ino, written.ino);
    // Another source in the same folder is built anew, beside the first.
    await Deno.writeTextFile(`${directory}/llama_cpp_python-0.3.36/vendor/llama.cpp/changed`, "");
    const other = `${directory}/other.tar.gz`;
    await runProgram("tar", ["-C", directory, "-czf", other, "llama_cpp_python-0.3.36"]);
    await measureLlamaCpp({ ...plan, source: other });
    assertEquals(await calls(), 6);
    await measureLlamaCpp(plan);
    assertEquals(await calls(), 6);
    const torch = await measurePytorch(`${directory}/python`);
    const result = peersResult([torch], { device, environment }, peersResult([run], { device, environment }));
    assertEquals(result.rows.length, 4 + torch.measurements.length);
  }));
