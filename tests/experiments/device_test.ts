import { join } from "@std/path";
import type { RunSettings } from "../../experiments/context.ts";
import { calibration } from "../../experiments/calibration.ts";
import type { Experiment, ExperimentContext, OpenedModel } from "../../experiments/experiment.ts";
import { fourBitShare } from "../../experiments/four_bit_share.ts";
import { twobit } from "../../experiments/methods.ts";
import { cpuPlace, type ModelPlace } from "../../experiments/models/model_place.ts";
import { outliers } from "../../experiments/outliers.ts";
import { findFiles, openGiven } from "../../experiments/packed/packed_cases.ts";
import type { Result } from "../../experiments/results/result.ts";
import { runExperiments, type RunOptions } from "../../experiments/run.ts";
import { type TensorToWrite, writeSafetensors } from "../../model/files/safetensors_writer.ts";
import { hashWeights, loadModel, openModel } from "../../model/load.ts";
import { quantizeModel } from "../../model/quantize_file.ts";
import { parseConfig } from "../../model/llama/config.ts";
import { allLayerTensors } from "../../model/llama/layer.ts";
import { divideTexts } from "../../model/quantize/divided_texts.ts";
import { loadText } from "../../model/text/text.ts";
import { createCpuPool } from "../../model/workers/cpu_pool.ts";
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "../assert.ts";
import { normals } from "../quant/helpers.ts";
import { filesIn, inDirectory } from "../temporary.ts";

const TINY = new URL("../../model/tiny/", import.meta.url);

/** A random model of two small layers for the embedded model's tokenizer, with a context of 64 tokens, and a short text. */
async function makeSmallModel(directory: string): Promise<Pick<RunSettings, "modelName" | "textName">> {
  const model = join(directory, "model");
  await Deno.mkdir(model);
  const changes = {
    hidden_size: 128,
    intermediate_size: 256,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    max_position_embeddings: 64,
  };
  const config = { ...JSON.parse(await Deno.readTextFile(new URL("config.json", TINY))), ...changes };
  await Deno.writeTextFile(join(model, "config.json"), JSON.stringify(config));
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    await Deno.copyFile(new URL(name, TINY), join(model, name));
  }
  const tensor = (name: string, shape: readonly number[], values: Float32Array<ArrayBuffer>): TensorToWrite => ({
    name,
    dtype: "F32",
    shape,
    bytes: () => new Uint8Array(values.buffer),
  });
  const shapes = [...allLayerTensors(parseConfig("config.json", JSON.stringify(config))).values()];
  await writeSafetensors(join(model, "model.safetensors"), [
    tensor("model.embed_tokens.weight", [config.vocab_size, 128], normals(1, config.vocab_size * 128, 0.1)),
    tensor("model.norm.weight", [128], new Float32Array(128).fill(1)),
    ...shapes.map(({ name, shape: [rows, channels] }, i) =>
      channels === undefined
        ? tensor(name, [rows], new Float32Array(rows).fill(1))
        : tensor(name, [rows, channels], normals(i, rows * channels, 0.08))
    ),
  ]);
  const text = join(directory, "text.txt");
  await Deno.writeTextFile(text, (await loadText("sotu")).documents[0].slice(0, 4000));
  return { modelName: model, textName: `file:${text}` };
}

async function runOne(
  experiment: Experiment,
  directory: string,
  settings: Partial<RunSettings>,
  changes: Partial<RunOptions> = {},
): Promise<Result> {
  const plain = { quick: true, seed: 1, modelName: "tiny", textName: "sotu", taskFiles: [] };
  const [result] = await runExperiments([experiment], {
    settings: { ...plain, ...settings },
    out: join(directory, "results"),
    command: "test",
    ...changes,
  });
  return result;
}

Deno.test("outliers: on the GPU the same rows as on the CPU, of the same bits and about as good", () =>
  inDirectory(async (directory) => {
    const model = await makeSmallModel(directory);
    const [gpu, cpu] = [
      await runOne(outliers, directory, { ...model, device: "gpu" }),
      await runOne(outliers, directory, { ...model, device: "cpu" }),
    ];
    assert(String(gpu.settings["quantized on"]).startsWith("GPU"));
    assertEquals(cpu.settings["quantized on"], undefined);
    for (const key of ["evaluation text", "windows", "calibration"]) {
      assertEquals(gpu.settings[key], cpu.settings[key]);
    }
    assert(String(gpu.settings.calibration).includes("mix"));
    assertEquals(gpu.rows.map(({ method }) => method), cpu.rows.map(({ method }) => method));
    for (const [i, row] of gpu.rows.entries()) {
      assertEquals(row.bits_per_weight, cpu.rows[i].bits_per_weight);
      // Activations are f16 there, and quantizations that differ in rounding alone are some tenths of a percent apart.
      const ratio = Number(row.perplexity) / Number(cpu.rows[i].perplexity);
      assert(Math.abs(ratio - 1) < 0.03, `${row.method}: perplexity is ${ratio} of the CPU's`);
    }
  }));

Deno.test("an interrupted experiment goes on after its last finished row, to the same result", () =>
  inDirectory(async (directory) => {
    const settings = { ...await makeSmallModel(directory), device: "cpu" } as const;
    const whole = await runOne(fourBitShare, directory, settings);
    const steps: string[] = [];
    const interrupt = (_id: string, _share: number, step: string) => {
      if (step.startsWith("twobit_1in4")) throw new Error("power cut");
    };
    await assertRejects(() => runOne(fourBitShare, directory, settings, { onProgress: interrupt }), Error, "power cut");
    assertEquals(filesIn(join(directory, "results")).filter((name) => name.endsWith(".rows")), ["four_bit_share.rows"]);
    const otherSeed = () => runOne(fourBitShare, directory, { ...settings, seed: 2 }, { resume: true });
    await assertRejects(otherSeed, RangeError, "holds rows of other settings, seed was 1, is 2");
    const resumed = await runOne(fourBitShare, directory, settings, {
      resume: true,
      onProgress: (_id, _share, step) => void steps.push(step),
    });
    assert(!steps.some((step) => step.startsWith("twobit_1in8")), "a finished row was made again");
    assert(steps.some((step) => step.startsWith("twobit_1in4")));
    const { environment: _, ...found } = resumed;
    const { environment: __, ...wanted } = whole;
    assertEquals(found, wanted);
    assertEquals(filesIn(join(directory, "results")).filter((name) => name.endsWith(".rows")), []);
  }));

Deno.test("calibration: each text on each evaluation, by both methods, from what each has of its own; a packed file", () =>
  inDirectory(async (directory) => {
    const model = await makeSmallModel(directory);
    const quantizedName = join(directory, "q.safetensors");
    const options = { method: "search", device: "cpu", calibration: { windows: 1, windowTokens: 16 } } as const;
    const { bitsPerWeight } = await quantizeModel(model.modelName, quantizedName, options);
    const settings = { ...model, quantizedName, device: "gpu" } as const;
    const { rows: all, samples, settings: stated, verdict } = await runOne(calibration, directory, settings);
    const rows = all.slice(0, -1);
    const names = ["text.txt", "speeches", "mix"];
    assertEquals(
      rows.map(({ text, evaluated }) => [text, evaluated]),
      names.flatMap((text) => names.map((evaluated) => [text, evaluated])),
    );
    // By hand: a quarter of 965 tokens has 3 windows of 63 and BOS, and so all texts calibrate on as many.
    assert(String(stated["text.txt"]).endsWith("3 windows of 64 tokens calibrate, 4 are evaluated"));
    for (const name of names.slice(1)) {
      assert(String(stated[name]).endsWith("3 windows of 64 tokens calibrate, 2 are evaluated"));
    }
    // Windows of the second evaluation follow those of the first.
    const lossOf = (name: string) =>
      samples![`${name}: nats a token, by window`].slice(4, 6).reduce((sum, loss) => sum + loss / 2, 0);
    const row = rows.find(({ text, evaluated }) => text === "mix" && evaluated === "speeches")!;
    const [unquantized, feedback, corrected] = ["unquantized", "mix feedback", "mix corrected"].map(lossOf);
    assertAlmostEquals(Number(row.difference), corrected - feedback, 1e-6);
    assertAlmostEquals(Number(row.feedback_ratio), Math.exp(feedback - unquantized), 1e-6);
    assertAlmostEquals(Number(row.corrected_ratio), Math.exp(corrected - unquantized), 1e-6);
    assertEquals(new Set(rows.map(({ feedback_perplexity: perplexity }) => perplexity)).size, rows.length);
    const { text, evaluated, bits_per_weight, unquantized_perplexity, file_perplexity, file_ratio } = all.at(-1)!;
    assertEquals([text, evaluated, bits_per_weight], ["quantize: random tokens", "text.txt", bitsPerWeight]);
    assertAlmostEquals(Number(file_ratio), Number(file_perplexity) / Number(unquantized_perplexity), 1e-6);
    assertEquals(unquantized_perplexity, rows[0].unquantized_perplexity);
    assertEquals(samples!["quantize: random tokens: nats a token, by window"].length, 4);
    const worst = Math.max(...rows.map((row) => Number(row.difference) / Number(row.difference_error)));
    assertEquals(verdict.status, worst <= 1 ? "reproduced" : worst <= 2 ? "partly" : "not reproduced");
  }));

Deno.test("calibration: a given file that knows the text, one of another model, a quarter too short, and the CPU", () =>
  inDirectory(async (directory) => {
    const { modelName, textName } = await makeSmallModel(directory);
    const quantizedName = join(directory, "q.safetensors");
    const text = `mix+${textName}`;
    await quantizeModel(modelName, quantizedName, {
      device: "cpu",
      calibration: { text, windows: 2, windowTokens: 16 },
    });
    using checkpoint = await openModel(modelName);
    const sha256 = await hashWeights(checkpoint);
    const opened = { name: modelName, checkpoint, sha256 };
    // Nothing is put on that GPU: the cases are only found.
    const onGpu = { isRealGpu: true, gpu: {} } as unknown as ModelPlace;
    const contextOf = (changes: Partial<OpenedModel> = {}) =>
      ({
        ...{ quick: false, quantizedName, textName },
        opened: () => Promise.resolve({ ...opened, ...changes }),
        place: () => Promise.resolve(onGpu),
      }) as unknown as ExperimentContext;
    const given = (await openGiven(contextOf()))!;
    assertEquals(given.name, "quantize: mix+file:text.txt");
    assert(given.said.endsWith("densities uniform, untuned; has seen what is evaluated"), given.said);
    const other = await openGiven({ ...contextOf(), textName: "sotu" });
    assert(other!.said.endsWith("densities uniform, untuned"), other!.said);
    await assertRejects(
      () => openGiven(contextOf({ sha256: "0123456789abcdef0123" })),
      Error,
      `${quantizedName} is made of a model with sha256 ${sha256.slice(0, 16)}, must be made of model (sha256 ` +
        "0123456789abcdef) to be compared with it",
    );

    // By hand: windows of the context's 64 tokens, at 12 characters each.
    const own = { name: "text.txt", parts: "", calibrating: [], evaluated: [] };
    const find = (characters: number) =>
      findFiles(contextOf(), { ...own, calibratingText: "a".repeat(characters) }, directory, given);
    const name = "quantize: first quarter+mix";
    const short = await find(767);
    assertEquals(short.files.map(({ name }) => name), [given.name, "quantize: search"]);
    assertEquals(short.leftOut, { [name]: "left out: the quarter has 767 characters, must have 768" });
    const long = await find(768);
    assertEquals(long.files.map(({ name }) => name), [given.name, name, "quantize: search"]);
    assertEquals([long.leftOut, (await Deno.readTextFile(join(directory, "first_quarter.txt"))).length], [{}, 768]);

    const onCpu = await runOne(calibration, directory, { modelName, textName, quantizedName, device: "cpu" });
    assertEquals(onCpu.rows.length, 9);
    assertEquals(onCpu.settings["quantized on"], undefined);
    assertEquals(onCpu.settings["packed file"], "left out, needs a GPU");
    for (const { difference, corrected_perplexity: corrected, feedback_perplexity: feedback } of onCpu.rows) {
      assertAlmostEquals(Number(difference), Math.log(Number(corrected) / Number(feedback)), 1e-6);
    }
    assertEquals(new Set(onCpu.rows.map(({ corrected_perplexity: perplexity }) => perplexity)).size, 9);
    assertEquals(filesIn(join(directory, "results")).filter((name) => name.endsWith(".txt")), []);
    using pool = createCpuPool();
    using place = cpuPlace(pool, async () => (await loadModel(modelName)).model);
    const plan = { quantizerOf: twobit, windows: [], onProgress() {} };
    for (const inputs of ["default", { asked: {} }, { path: quantizedName, sha256 }] as const) {
      await assertRejects(() => place.quantize({ ...plan, inputs }), TypeError, "which need a GPU, must be others");
    }
  }));

Deno.test("divideTexts: as many windows of each to calibrate on, and no window twice; what the model writes too", () =>
  inDirectory(async (directory) => {
    const { modelName, textName } = await makeSmallModel(directory);
    using checkpoint = await openModel(modelName);
    const plan = {
      ...{ calibrating: 4, evaluated: 4, others: 2, windowTokens: 512, textName, writes: true, seed: 1 },
      ...{ path: join(directory, "texts"), sourceSha256: "0", gpu: undefined, onProgress() {} },
    };
    const { texts, whyNotSelf } = await divideTexts(checkpoint, plan);
    assertEquals(whyNotSelf, undefined);
    assertEquals(
      texts.map(({ name, calibrating, evaluated }) => [name, calibrating.length, evaluated.length]),
      [["text.txt", 3, 4], ["speeches", 3, 2], ["mix", 3, 2], ["self", 3, 2]],
    );
    for (const { calibrating, evaluated } of texts) {
      const all = [...calibrating, ...evaluated];
      assert(all.every(({ length }) => length === 64));
      assertEquals(new Set(all.map(String)).size, all.length);
    }
    // By hand: of 965 tokens 241 calibrate, and a window is BOS and 63 of those that follow.
    const { tokenizer: { prefix, encode } } = checkpoint;
    const tokens = [...prefix, ...encode(await Deno.readTextFile(join(directory, "text.txt")))];
    assertEquals(tokens.length, 965);
    assertEquals(Array.from(texts[0].evaluated[0]), [...prefix, ...tokens.slice(241, 304)]);

    const read = () => Promise.reject(new RangeError("weights beyond f16"));
    const mute = await divideTexts({ ...checkpoint, read, tensors: [] }, { ...plan, path: join(directory, "other") });
    assertEquals(mute.texts.map(({ name }) => name), ["text.txt", "speeches", "mix"]);
    assertEquals(mute.whyNotSelf, "left out, as the model can't write: weights beyond f16");
    for (const name of ["speeches", "mix", "self"]) {
      const named = divideTexts(checkpoint, { ...plan, textName: `file:${directory}/${name}` });
      await assertRejects(() => named, RangeError, "must not be named speeches, mix, self");
    }
    const one = divideTexts(checkpoint, { ...plan, evaluated: 1 });
    await assertRejects(() => one, RangeError, "text.txt has 1 windows to evaluate, must have at least 2");
  }));
