import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { openSafetensors } from "../../model/files/open_directory.ts";
import { openPacked } from "../../model/files/open_packed.ts";
import { openModel } from "../../model/load.ts";
import { quantizeModel } from "../../model/quantize_file.ts";
import type { QuantizeOptions } from "../../model/quantize_options.ts";
import {
  type CalibrationOptions,
  chooseCalibration,
  type UsedCalibration,
} from "../../model/quantize/choose_calibration.ts";
import { layersDirectory } from "../../model/quantize/finished_layers.ts";
import { RANDOM_SIZES } from "../../quant/recipe.ts";
import { createRandom } from "../../quant/random.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { filesIn, inDirectory } from "../temporary.ts";

const FIXTURE = new URL("../fixtures/llama_tied_gqa", import.meta.url).pathname;

const windows = Array.from({ length: 3 }, (_, i) => {
  const random = createRandom(i);
  return Uint32Array.from({ length: 30 + i }, () => random.integer(96));
});
const options: QuantizeOptions = { calibration: { tokens: windows }, device: "cpu" };

Deno.test("quantizeModel: given tokens calibrate, excluded matrices stay, and the report counts every byte", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/q.safetensors`;
    const names: string[] = [];
    const shares: number[] = [];
    const layerCounts: [finished: number, layers: number][] = [];
    const report = await quantizeModel(FIXTURE, path, {
      ...options,
      refine: 4,
      exclude: /layers\.0\.|v_proj/g,
      onMatrix: ({ name, relativeError, weightedError }) => {
        assert(relativeError > 0 && relativeError < 0.2, `${name}: ${relativeError}`);
        assert(weightedError! > 0 && weightedError! < relativeError, `${name}: ${weightedError}`);
        names.push(name);
      },
      onProgress: (share) => shares.push(share),
      onLayer: (...count) => layerCounts.push(count),
      onDevice: ({ kind, reason }) => assertEquals([kind, reason], ["cpu", undefined]),
    });
    const kept = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj"];
    assertEquals(names, [...kept, "mlp.down_proj"].map((name) => `model.layers.1.${name}`));
    assertEquals(layerCounts, [[1, 2], [2, 2]]);
    assert(shares.every((share, i) => share >= (shares[i - 1] ?? 0) && share <= 1));
    using packed = await openPacked(path);
    assertEquals([...packed.packed.keys()], names);
    assertEquals([...packed.packed.values()].map(({ refineEvery }) => refineEvery), names.map(() => 4 as const));
    const { calibration, windowTokens, layers, device } = JSON.parse(packed.file.metadata.settings);
    assertEquals([calibration, windowTokens, layers, device], ["tokens", 32, "layers\\.0\\.|v_proj", "cpu"]);
    // The checkpoint's own tensors are BF16.
    const inFile = [...packed.file.tensors.values()].filter(({ name }) => name.includes("_proj."))
      .reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    assertEquals(report.bytes, inFile);
    assertEquals(report.bitsPerWeight, (8 * report.bytes) / report.weights);
    assertEquals([report.device, report.deviceBytes], ["the CPU", undefined]);
    await assertRejects(() => quantizeModel(path, `${directory}/r`, options), Error, `${path} is packed already`);
  }));

Deno.test("quantizeModel: the embedded model's default text is speeches, another model's the mix, search has random tokens", () =>
  inDirectory(async (directory) => {
    const settingsOf = async (model: string, changes: QuantizeOptions) => {
      const path = `${directory}/${crypto.randomUUID()}`;
      await quantizeModel(model, path, { device: "cpu", ...changes });
      using packed = await openPacked(path);
      return { ...JSON.parse(packed.file.metadata.settings), path };
    };
    const quick = { calibration: { windows: 2, windowTokens: 32 }, exclude: /layers\.[1-4]|mlp|[qko]_proj/ };
    const embedded = new URL("../../model/tiny", import.meta.url).pathname;
    const texts = [await settingsOf("tiny", quick), await settingsOf(embedded, quick)];
    assertEquals(texts.map(({ calibration, windows, windowTokens }) => [calibration, windows, windowTokens]), [
      ["calibration", 2, 32],
      ["mix", 2, 32],
    ]);
    const [first, again] = [
      await settingsOf(FIXTURE, { method: "search" }),
      await settingsOf(FIXTURE, { method: "search" }),
    ];
    assertEquals([first.calibration, first.windows, first.windowTokens], [
      "random tokens",
      RANDOM_SIZES.cpu.windows,
      512,
    ]);
    assertEquals(first.quantizer.pick, "error_hessian");
    const bytes = (settings: { path: string }) => Deno.readFile(settings.path);
    assertEquals(await bytes(first), await bytes(again));
  }));

Deno.test("quantizeModel: densities by KL are uniform on the CPU and without a text, and it says so", () =>
  inDirectory(async (directory) => {
    for (
      const [changes, reason] of [
        [options, "what layers lose is measured on a GPU alone"],
        [{ device: "cpu", method: "search" }, "search has no text"],
      ] as const
    ) {
      const path = `${directory}/${reason.length}`;
      const told: unknown[] = [];
      await quantizeModel(FIXTURE, path, { ...changes, densities: "kl", onDensities: (chosen) => told.push(chosen) });
      assertEquals(told, [reason]);
      using packed = await openPacked(path);
      const { densities, refine } = JSON.parse(packed.file.metadata.settings);
      assertEquals([densities, refine], ["uniform", 8]);
    }
  }));

Deno.test("quantizeModel: an abort leaves whole layers and nothing else, and a resumed run makes the same file", () =>
  inDirectory(async (directory) => {
    const [whole, path] = [`${directory}/whole`, `${directory}/q`];
    await quantizeModel(FIXTURE, whole, options);
    const controller = new AbortController();
    const reason = new Error("enough");
    const onProgress = (share: number) => share >= 0.5 && controller.abort(reason);
    const aborted = () => quantizeModel(FIXTURE, path, { ...options, onProgress, signal: controller.signal });
    assert(await aborted().catch((error) => error) === reason);
    assertEquals(filesIn(directory), ["q.layers", "whole"]);
    assertEquals(filesIn(layersDirectory(path)), ["layer-0.safetensors", "run.json"]);
    assert(await aborted().catch((error) => error) === reason, "aborted before it begins");
    const steps: string[] = [];
    await quantizeModel(FIXTURE, path, { ...options, resume: true, onProgress: (_, step) => steps.push(step) });
    assertEquals(steps[0], "layer 0 was finished before");
    assertEquals(await Deno.readFile(path), await Deno.readFile(whole));
    assertEquals(filesIn(directory), ["q", "whole"]);
  }));

Deno.test("quantizeModel: a resumed run goes on with what its defaults chose, and is refused other settings at once", () =>
  inDirectory(async (directory) => {
    const [whole, path] = [`${directory}/whole`, `${directory}/q`];
    const own = new URL("../../model/tiny", import.meta.url).pathname;
    const begun = {
      device: "cpu",
      exclude: /layers\.[2-4]|mlp|[qko]_proj/,
      densities: "kl",
      calibration: { text: "calibration", windows: 2, windowTokens: 32 },
    } as const;
    await quantizeModel(own, whole, begun);
    const controller = new AbortController();
    const onLayer = () => controller.abort(new Error("enough"));
    await quantizeModel(own, path, { ...begun, onLayer, signal: controller.signal }).catch(() => {});
    const { calibration: _, ...plain } = begun;
    const used: unknown[] = [];
    const resume = (changes: QuantizeOptions) =>
      quantizeModel(own, path, { ...plain, ...changes, resume: true, onCalibration: (text) => used.push(text) });
    const named = { text: "mix", windows: 4 };
    for (
      const [changes, difference] of [
        [{ calibration: named }, 'calibration was "calibration", is "mix"; windows was 2, is 4'],
        [{ seed: 2 }, "seed was 1, is 2"],
        [{ densities: "uniform", refine: 4 }, "refine was 8, is 4"],
      ] as const
    ) {
      await assertRejects(() => resume(changes), RangeError, `other settings or another checkpoint: ${difference}`);
    }
    assertEquals(used, []);
    const told: unknown[] = [];
    await resume({ onDensities: (chosen) => told.push(chosen) });
    assertEquals([used, told], [[{ calibration: "calibration", tokens: 64 }], ["those of the interrupted run are"]]);
    assertEquals(await Deno.readFile(path), await Deno.readFile(whole));
    await assertRejects(() => resume({}), RangeError, "holds no interrupted run");
  }));

Deno.test("chooseCalibration: 128 windows instead of 448 where the GPU has no room for their text, and why", async () => {
  using checkpoint = await openModel("tiny");
  const choose = async (room: number, given: CalibrationOptions) => {
    const asked: number[] = [];
    const checkRoom = (_: string, bytes: number) => {
      asked.push(bytes);
      return bytes <= room ? Promise.resolve() : Promise.reject(new OutOfMemoryError("no room", bytes, 0));
    };
    let used: UsedCalibration | undefined;
    const { text, windows } = await chooseCalibration(checkpoint, {
      ...{ method: "corrected", given: { text: "mix", windowTokens: 32, ...given }, isTiny: false, isRealGpu: true },
      ...{ gpu: { checkRoom } as unknown as Gpu, path: "nowhere", seed: 1, sourceSha256: "x" },
      ...{ signal: undefined, onProgress: undefined, onCalibration: (found) => used = found },
    });
    assertEquals(windows.length, text.windows);
    return [windows.length, used?.whyFewer, asked.length];
  };
  const { hidden, heads, headSize, intermediate } = checkpoint.config;
  const textBytes = 2 * 448 * 32 * 4 * (hidden + Math.max(intermediate, heads * headSize));
  assertEquals(await choose(2 * textBytes + 2 ** 31, {}), [448, undefined, 1]);
  assertEquals(await choose(textBytes, {}), [128, "no room", 1]);
  assertEquals(await choose(0, { windows: 3 }), [3, undefined, 0]);
});

Deno.test("quantizeModel: carried tensors that are no numbers, and weights too small for f16, are refused", () =>
  inDirectory(async (directory) => {
    await Deno.copyFile(`${FIXTURE}/config.json`, `${directory}/config.json`);
    const { source, tensors } = await openSafetensors(`${FIXTURE}/model.safetensors`);
    using _source = source;
    const bytes = await source.read(0, source.sizeBytes);
    const quantized = async (name: string, change: (words: Uint16Array) => void) => {
      const { offset, sizeBytes, dtype } = tensors.get(name)!;
      assertEquals(dtype, "BF16");
      const changed = bytes.slice();
      const words = new Uint16Array(changed.slice(offset, offset + sizeBytes).buffer);
      change(words);
      changed.set(new Uint8Array(words.buffer), offset);
      await Deno.writeFile(`${directory}/model.safetensors`, changed);
      return await quantizeModel(directory, `${directory}/q`, { method: "search", device: "cpu" });
    };
    const spoil = (bits: number) => (words: Uint16Array) => words.fill(bits, 5, 6);
    const refused = (name: string, change: (words: Uint16Array) => void, message: string, error: new () => Error) =>
      assertRejects(() => quantized(name, change), error, message);
    await refused("model.norm.weight", spoil(0x7fc0), "tensor model.norm.weight holds NaN at element 5", SyntaxError);
    const embedding = "model.embed_tokens.weight";
    await refused(embedding, spoil(0xff80), `tensor ${embedding} holds -Infinity at element 5`, SyntaxError);
    // Nothing was quantized by then.
    assertEquals(filesIn(directory), ["config.json", "model.safetensors"]);
    const small = "model.layers.0.mlp.up_proj";
    const shrink = (words: Uint16Array) => words.forEach((_, i) => words[i] = 0x322c); // 1e-8
    await refused(`${small}.weight`, shrink, `${small} has weights of at most 1`, RangeError);
    assertEquals(filesIn(directory).filter((name) => name !== "q.layers"), ["config.json", "model.safetensors"]);
    await quantized(`${small}.weight`, (words) => words.fill(0)); // nothing is lost
  }));

Deno.test("quantizeModel: options that can't be met are refused before anything is written", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/q`;
    const refused = (changes: object, message: string) =>
      assertRejects(() => quantizeModel(FIXTURE, path, { ...options, ...changes }), RangeError, message);
    await refused({ exclude: /proj/ }, "exclude is /proj/, must leave a matrix to quantize");
    await refused({ outliers: 0.06 }, "outliers is 0.06, must be between 0 and 0.05");
    await refused({ method: "best" }, "method is best, must be one of corrected, feedback, search");
    await refused({ refine: 3 }, "refine is 3, must be one of none, 16, 8, 4, 2, 1");
    await refused({ densities: "best" }, "densities is best, must be one of uniform, kl");
    await refused({ densities: "kl", refine: 4 }, "refine is 4 and densities is kl, must be one of them");
    await refused({ device: "tpu" }, "device is tpu, must be one of auto, cpu, gpu");
    await refused({ calibration: { windows: 0 } }, "windows is 0, must be a whole number from 1 on");
    await refused({ calibration: { windowTokens: 1 } }, "windowTokens is 1, must be a whole number from 2 on");
    await refused({ calibration: { tokens: [] } }, "windows is 0, must be a whole number from 1 on");
    await refused({ calibration: { tokens: [Uint32Array.of(1, 96)] } }, "calibration has token 96, must be below 96");
    const uneven = `${directory}/uneven`;
    await Deno.mkdir(uneven);
    const config = JSON.parse(await Deno.readTextFile(`${FIXTURE}/config.json`));
    await Deno.writeTextFile(`${uneven}/config.json`, JSON.stringify({ ...config, intermediate_size: 40 }));
    await Deno.copyFile(`${FIXTURE}/model.safetensors`, `${uneven}/model.safetensors`);
    const onGpu = quantizeModel(uneven, path, { ...options, device: "gpu" });
    const wanted =
      "down_proj is 32 x 40, the device wants rows in fours and channels in sixteens, must be quantized with";
    await assertRejects(() => onGpu, Error, wanted);
    await Deno.remove(uneven, { recursive: true });
    const text = quantizeModel(FIXTURE, path, { ...options, calibration: {} });
    await assertRejects(() => text, SyntaxError, "has no tokenizer.json");
    assertEquals(filesIn(directory), []);
  }));
