import { OutOfMemoryError } from "../../../kernels/gpu/device_errors.ts";
import type { QuantizingDevice } from "../../../model/quantize/quantizing_device.ts";
import { openModel } from "../../../model/load.ts";
import { openPacked } from "../../../model/files/open_packed.ts";
import { cpuDevice } from "../../../model/quantize/cpu_device.ts";
import { gpuDevice } from "../../../model/quantize/gpu_device.ts";
import { type PackedFilePlan, writePackedFile } from "../../../model/quantize/packed_writer.ts";
import { quantizeModel } from "../../../model/quantize_file.ts";
import type { TuningReport } from "../../../model/tune/tune_model.ts";
import { createCpuPool } from "../../../model/workers/cpu_pool.ts";
import { createRandom } from "../../../quant/random.ts";
import { twobitQuantizer } from "../../../quant/recipe.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { testGpu } from "../../kernels/helpers.ts";
import { inDirectory } from "../../temporary.ts";

const fixture = (name: string) => new URL(`../../fixtures/${name}`, import.meta.url).pathname;

const windows = Array.from({ length: 12 }, (_, i) => {
  const random = createRandom(i);
  return Uint32Array.from({ length: i === 2 ? 29 : 60 }, () => random.integer(96));
});

const plan = (path: string, changes: Partial<PackedFilePlan> = {}): PackedFilePlan => ({
  path,
  calibration: windows,
  correctTarget: true,
  metadata: { sourceSha256: "0".repeat(64), settings: "{}" },
  resume: false,
  // Random weights are lost more by search, so that there is more to win.
  quantizerOf: (layer, kind) => layer === 1 && kind === "k_proj" ? undefined : twobitQuantizer({}, "search"),
  ...changes,
});

const tuning = { epochs: 2, rate: 0.01, batchWindows: 4, seed: 1 };

Deno.test("tuned file: held-out divergence falls, codes stay, and an interrupted run ends in the same bytes", () =>
  inDirectory(async (directory) => {
    const gpu = await testGpu();
    using checkpoint = await openModel(fixture("qwen2_tied"));
    let report: TuningReport | undefined;
    await writePackedFile(gpuDevice(gpu), checkpoint, plan(`${directory}/before`));
    await writePackedFile(
      gpuDevice(gpu),
      checkpoint,
      plan(`${directory}/tuned`, { tuning, onTuned: (found) => report = found }),
    );
    const held = gpu.heldBytes;
    assert(report && report.epoch > 0 && report.after < 0.99 * report.before, JSON.stringify(report));
    using before = await openPacked(`${directory}/before`);
    using tuned = await openPacked(`${directory}/tuned`);
    assertEquals(tuned.packed, before.packed);
    for (const name of before.packed.keys()) {
      const [a, b] = [await before.readPacked(name), await tuned.readPacked(name)];
      assertEquals({ ...b, tileScale: a.tileScale }, a);
      assert(a.tileScale.some((d, i) => d !== b.tileScale[i]), name);
      assert(a.tileScale.every((d, i) => Math.sign(d) === Math.sign(b.tileScale[i])), name);
    }
    for (const name of ["model.norm.weight", "model.layers.1.input_layernorm.weight"]) {
      const [a, b] = [await before.read(name, [64]), await tuned.read(name, [64])];
      assert(a.some((value, i) => value !== b[i] && Math.abs(value - b[i]) < 0.2), name);
    }
    const stop = new AbortController();
    const interrupted = plan(`${directory}/again`, {
      tuning,
      signal: stop.signal,
      onProgress: (_, step) => step.startsWith("tuning, epoch 2") && stop.abort(new Error("power cut")),
    });
    await assertRejects(() => writePackedFile(gpuDevice(gpu), checkpoint, interrupted), Error, "power cut");
    await writePackedFile(gpuDevice(gpu), checkpoint, plan(`${directory}/again`, { tuning, resume: true }));
    assertEquals(await Deno.readFile(`${directory}/again`), await Deno.readFile(`${directory}/tuned`));
    assertEquals(gpu.heldBytes, held);
  }));

Deno.test("tuned file: where no epoch is better the model stays as it was quantized", () =>
  inDirectory(async (directory) => {
    using checkpoint = await openModel(fixture("qwen2_tied"));
    let report: TuningReport | undefined;
    const wild = { ...tuning, epochs: 1, rate: 5 };
    const device = gpuDevice(await testGpu());
    await writePackedFile(device, checkpoint, plan(`${directory}/before`));
    await writePackedFile(
      device,
      checkpoint,
      plan(`${directory}/tuned`, { tuning: wild, onTuned: (found) => report = found }),
    );
    assertEquals(report?.epoch, 0);
    assertEquals(report?.after, report?.before);
    assertEquals(await Deno.readFile(`${directory}/tuned`), await Deno.readFile(`${directory}/before`));
  }));

Deno.test("tuned file: where the device can't tune its layers go on untuned, at once or by resuming; faults end the run", () =>
  inDirectory(async (directory) => {
    using checkpoint = await openModel(fixture("qwen2_tied"));
    const device = gpuDevice(await testGpu());
    const failing = (error: Error): QuantizingDevice => ({
      ...device,
      async start(...given) {
        const run = await device.start(...given);
        const tune = () => Promise.reject(error);
        return { ...run, tune, [Symbol.dispose]: () => run[Symbol.dispose]() };
      },
    });
    const broken = failing(new OutOfMemoryError("no room", 2, 1));
    const [before, atOnce, later] = ["before", "at_once", "later"].map((name) => `${directory}/${name}`);
    await writePackedFile(device, checkpoint, plan(before));
    const reasons: string[] = [];
    await writePackedFile(broken, checkpoint, plan(atOnce, { tuning, onUntuned: (reason) => reasons.push(reason) }));
    assertEquals(reasons, ["no room"]);
    assertEquals(await Deno.readFile(atOnce), await Deno.readFile(before));
    const onUntuned = (reason: string) => reasons.push(reason);
    const faulty = () => writePackedFile(failing(new TypeError("x")), checkpoint, plan(later, { tuning, onUntuned }));
    await assertRejects(faulty, TypeError, "x");
    assertEquals(reasons, ["no room"]);
    await assertRejects(() => writePackedFile(broken, checkpoint, plan(later, { tuning })), Error, "no room");
    await writePackedFile(device, checkpoint, plan(later, { resume: true }));
    assertEquals(await Deno.readFile(later), await Deno.readFile(before));
  }));

Deno.test("tuning is refused early: on the CPU, without corrected targets, with one window", () =>
  inDirectory(async (directory) => {
    using checkpoint = await openModel(fixture("qwen2_tied"));
    using pool = createCpuPool(1);
    const path = `${directory}/refused`;
    const onCpu = () => writePackedFile(cpuDevice(pool), checkpoint, plan(path, { tuning }));
    await assertRejects(onCpu, Error, "not tuned on the CPU, must be quantized on a GPU");
    const one = plan(path, { tuning, calibration: windows.slice(0, 1) });
    const device = gpuDevice(await testGpu());
    await assertRejects(() => writePackedFile(device, checkpoint, one), RangeError, "tuning has 1 windows");
    const tiny = () => quantizeModel("tiny", path, { device: "cpu", tune: true });
    await assertRejects(tiny, Error, "not tuned on the CPU");
    const search = () => quantizeModel("tiny", path, { method: "search", tune: true });
    await assertRejects(search, RangeError, "method is search, must be corrected");
  }));
